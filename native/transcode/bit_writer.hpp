// Bits to the bytes of an entropy-coded scan (T.81, B.1.1.5 and F.1.2.3).
#pragma once

#include <cstdint>

#include "core/bits.hpp"

namespace fl {

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
        if (find_ff(bytes)) {
            for (int shift = 56; shift >= 0; shift -= 8)
                write1(static_cast<uint8_t>(bytes >> shift));
            return;
        }
        store_big64(bytes, out_);
        out_ += 8;
    }

    uint8_t* out_;
    uint64_t held_ = 0;
    int free_ = 64;  // unused bits of held_
};

}  // namespace fl
