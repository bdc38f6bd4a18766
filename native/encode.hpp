// Tokens to the bytes of an entropy-coded scan (T.81, F.1.2 and F.1.2.3).
#pragma once

#include <cstdint>
#include <cstring>

#include "optimal.hpp"
#include "tokens.hpp"

namespace fl {

// What to emit for each key: the code, shifted to leave room for the extra bits, and the total
// length.
struct Emit {
    uint32_t bits;
    uint32_t length;
};

// Codes of a table in order of length (T.81, Annex C), into the 256 entries of `emit`.
inline void assign_codes(const CodeBook& book, Emit* emit) {
    uint32_t code = 0;
    int k = 0;
    for (int length = 1; length <= kMaxCodeLength; length++) {
        for (int i = 0; i < book.counts[length]; i++) {
            const int symbol = book.symbols[k++];
            const uint32_t extra = symbol & 15;
            emit[symbol] = {code++ << extra, length + extra};
        }
        code <<= 1;
    }
}

// Writes bits, most significant first, each FF byte followed by a stuffed 00 (T.81, B.1.1.5).
// `out` must have room for twice the bits and 8 bytes.
class BitWriter {
  public:
    explicit BitWriter(uint8_t* out) : out_(out) {}

    void put(uint32_t bits, uint32_t length) {
        free_ -= static_cast<int>(length);
        if (free_ < 0) {  // one branch a code; a code and its extra bits are at most 27 bits
            const uint64_t full = held_ << (static_cast<int>(length) + free_) | bits >> -free_;
            write8(full);
            free_ += 64;
            held_ = bits;
        } else {
            held_ = held_ << length | bits;
        }
    }

    // Fill the last byte with ones (T.81, F.1.2.3) and write what is held.
    uint8_t* finish() {
        for (int length = 64 - free_; length > 0; length -= 8) {
            const uint64_t padded =
                length >= 8 ? held_ >> (length - 8) : held_ << (8 - length) | (0xFFu >> length);
            write1(static_cast<uint8_t>(padded));
        }
        held_ = 0;
        free_ = 64;
        return out_;
    }

    void marker(int code) {  // between two finished runs of bits
        *out_++ = 0xFF;
        *out_++ = static_cast<uint8_t>(code);
    }

  private:
    void write1(uint8_t byte) {
        *out_++ = byte;
        *out_ = 0;  // kept only when it is a stuffed byte
        out_ += byte == 0xFF;
    }
    void write8(uint64_t bytes) {
        // Any byte FF? Its high bit is set and is cleared by adding one (as zero-byte tests do).
        if (bytes & 0x8080808080808080u & ~(bytes + 0x0101010101010101u)) {
            for (int shift = 56; shift >= 0; shift -= 8)
                write1(static_cast<uint8_t>(bytes >> shift));
            return;
        }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        bytes = __builtin_bswap64(bytes);
#endif
        std::memcpy(out_, &bytes, 8);
        out_ += 8;
    }

    uint8_t* out_;
    uint64_t held_ = 0;
    int free_ = 64;  // unused bits of held_
};

}  // namespace fl
