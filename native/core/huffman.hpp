// Huffman codes (T.81, Annex C and F.2.2.3): the codes of a table in order, and HuffmanTable, which
// finds any symbol, up to 9 bits by one look-up. The decoder and the transcoder have faster tables
// for their inner loops: decode/lookup.hpp, transcode/sequential.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/bits.hpp"
#include "core/header.hpp"

namespace fl {

constexpr int kMaxCodeLength = 16;  // T.81, Annex C: BITS has 16 entries

// What baseline allows of 8-bit samples: T.81, F.1.2.
constexpr int kMaxDcCategory = 11, kMaxAcCategory = 10;
constexpr int kMaxDc = (1 << kMaxDcCategory) - 1;

// Bits that the faster tables look up at once. The transcoder chooses codes to fit it.
constexpr int kLookBits = 11;

// What the faster tables hold for an end-of-block code as the number of coefficients to pass: more
// than any run from any place.
constexpr int kEndOfBlock = 128;

// Calls put(code, length, symbol) for each code of at most `longest` bits, in order (T.81, C.2).
template <typename Put>
inline void each_code(const HuffmanSpec& spec, int longest, Put put) {
    uint32_t code = 0;
    int index = 0;
    for (int length = 1; length <= longest; ++length, code <<= 1)
        for (int i = 0; i < spec.counts[length]; ++i) put(code++, length, spec.symbols[index++]);
}

class HuffmanTable {
  public:
    // Refuses what libjpeg refuses: codes that overflow their length, and the all-ones code.
    Status build(const HuffmanSpec& spec) {
        std::memset(this, 0, sizeof *this);
        std::memcpy(symbols_, spec.symbols, sizeof symbols_);
        uint32_t code = 0;
        int index = 0;
        for (int length = 1; length <= kMaxCodeLength; ++length, code <<= 1) {
            const int count = spec.counts[length];
            if (count > 0 && code + count >= 1u << length) return kBadHuffmanTable;
            first_index_[length] = index - static_cast<int>(code);
            code += count;
            index += count;
            limit_[length] = code << (kMaxCodeLength - length);
        }
        limit_[kMaxCodeLength + 1] = 0xFFFFFFFF;
        each_code(spec, kQuickBits, [this](uint32_t prefix, int length, int symbol) {
            const uint32_t slots = 1u << (kQuickBits - length);
            for (uint32_t i = 0; i < slots; ++i)
                look_[prefix * slots + i] = static_cast<uint16_t>(length << 8 | symbol);
        });
        return kOk;
    }

    // length << 8 | symbol of the code that `window` begins with, 0 if there is none.
    int find(uint64_t window) const {
        const int quick = look_[window >> (64 - kQuickBits)];
        if (quick != 0) return quick;
        const uint32_t code = static_cast<uint32_t>(window >> 48);
        int length = kQuickBits + 1;  // shorter ones are in look_
        while (code >= limit_[length]) ++length;
        if (length > kMaxCodeLength) return 0;
        const int offset = static_cast<int>(code >> (kMaxCodeLength - length));
        return length << 8 | symbols_[first_index_[length] + offset];
    }

    // Next symbol, or -1 where the bits are no code; needs 16 bits in the window.
    int decode(BitReader& reader) const {
        const int found = find(reader.window);
        if (found == 0) return -1;
        reader.skip(found >> 8);
        return found & 0xFF;
    }

  private:
    static constexpr int kQuickBits = 9;

    uint16_t look_[1 << kQuickBits];  // by the next bits: length << 8 | symbol, 0 = longer or none
    uint32_t limit_[18];  // limit_[n]: first 16-bit-aligned code longer than n bits; [17]: all ones
    int first_index_[17];  // symbols_[first_index_[n] + code] for a code of n bits
    uint8_t symbols_[256];
};

}  // namespace fl
