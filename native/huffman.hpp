// Huffman codes (T.81 Annexes C and F.2.2.3): HuffmanTable finds any symbol, up to 9 bits by one
// look-up. The box decoder's hot loop has faster tables of its own, see lookup.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "bits.hpp"
#include "header.hpp"

namespace fl {

// Bits that the decoder's tables look up at once. The transcoder chooses codes to fit it.
constexpr int kLookBits = 11;

struct HuffmanTable {
    uint16_t look[512];   // by the next 9 bits: length << 8 | symbol, 0 = longer or no code
    uint32_t limit[18];   // limit[n]: first 16-bit-aligned code longer than n bits; [17] = all ones
    int first_index[17];  // symbols[first_index[n] + code] for a code of n bits
    uint8_t symbols[256];

    // Refuses what libjpeg refuses: codes that overflow their length, and the all-ones code.
    Status build(const HuffmanSpec& spec) {
        std::memset(this, 0, sizeof *this);
        std::memcpy(symbols, spec.symbols, sizeof symbols);
        uint32_t code = 0;
        int index = 0;
        for (int length = 1; length <= 16; ++length) {
            const int count = spec.counts[length];
            first_index[length] = index - static_cast<int>(code);
            if (count > 0 && code + count >= 1u << length) return kBadHuffmanTable;
            for (int i = 0; i < count; ++i, ++code, ++index) {
                if (length > 9) continue;
                const uint16_t entry = static_cast<uint16_t>(length << 8 | spec.symbols[index]);
                const uint32_t begin = code << (9 - length), end = (code + 1) << (9 - length);
                for (uint32_t slot = begin; slot < end; ++slot) look[slot] = entry;
            }
            limit[length] = code << (16 - length);
            code <<= 1;
        }
        limit[17] = 0xFFFFFFFF;
        return kOk;
    }

    // length << 8 | symbol of the code that `window` begins with, 0 if there is none.
    int find(uint64_t window) const {
        const int quick = look[window >> 55];
        if (quick != 0) return quick;
        const uint32_t code = static_cast<uint32_t>(window >> 48);
        int length = 10;  // shorter ones are in `look`
        while (code >= limit[length]) ++length;
        if (length > 16) return 0;
        return length << 8 | symbols[first_index[length] + static_cast<int>(code >> (16 - length))];
    }

    // Next symbol, or -1 where the bits are no code; needs 16 bits in the window.
    int decode(BitReader& reader) const {
        const int found = find(reader.window);
        if (found == 0) return -1;
        reader.skip(found >> 8);
        return found & 0xFF;
    }
};

}  // namespace fl
