// Huffman decoding tables (T.81 Annexes C and F.2.2.3).
//
// HuffmanTable finds any symbol; transcoding and long codes use it. SymbolTable is for the hot
// loop: one look-up of kLookBits bits yields code length, zero run and the coefficient's value
// together.
#pragma once

#include <cstdint>
#include <cstring>

#include "bits.hpp"
#include "header.hpp"

namespace fl {

constexpr int kLookBits = 11;  // measured: 97 % of symbols of photographs, value included, fit

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
        int length = 1;
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

// One look-up per symbol. An entry packs, from the low end: bits to skip (8, 0 = not in the table),
// coefficients to advance (8: run + 1, or kEndOfBlock), and the coefficient's value (16, signed).
struct SymbolTable {
    static constexpr unsigned kEndOfBlock = 128;  // beyond any run, so that it can be told from one

    uint32_t look[1 << kLookBits];
    HuffmanTable huffman;
    HuffmanSpec spec;  // what it was built from: the tables of the last image often serve the next
    bool is_dc;
    bool built = false;

    Status build(const HuffmanSpec& from, bool dc) {
        if (built && is_dc == dc && std::memcmp(&spec, &from, sizeof spec) == 0) return kOk;
        built = false;
        const Status status = huffman.build(from);
        if (status != kOk) return status;
        std::memset(look, 0, sizeof look);
        uint32_t code = 0;
        int index = 0;
        for (int length = 1; length <= kLookBits; ++length, code <<= 1) {
            for (int i = 0; i < from.counts[length]; ++i, ++code)
                fill(code, length, from.symbols[index++], dc);
        }
        if (dc)
            for (int i = 0; i < from.total; ++i)
                if (from.symbols[i] > 15) return kBadHuffmanTable;
        spec = from;
        is_dc = dc;
        built = true;
        return kOk;
    }

    static uint32_t pack(int bits, unsigned advance, int value) {
        return static_cast<uint32_t>(bits) | advance << 8 | static_cast<uint32_t>(value) << 16;
    }
    // F.2.2.2: RS = 0xF0 skips sixteen zeros, any other size of 0 ends the block (as in libjpeg).
    static unsigned advance(int symbol, bool dc) {
        if (dc) return 1;
        return (symbol & 15) != 0 || symbol == 0xF0 ? (symbol >> 4) + 1 : kEndOfBlock;
    }

    // The entry of a symbol that is not in `look`; needs 31 bits in the window. 0 = no such code.
    uint32_t find(uint64_t window) const {
        const int found = huffman.find(window);
        if (found == 0) return 0;
        const int length = found >> 8, symbol = found & 0xFF, size = symbol & 15;
        const unsigned extra = static_cast<unsigned>(window << length >> 1 >> (63 - size));
        return pack(length + size, advance(symbol, is_dc), extend(extra, size));
    }

  private:
    void fill(uint32_t code, int length, int symbol, bool dc) {
        const int size = symbol & 15, spare = kLookBits - length - size;
        if (spare < 0) return;
        uint32_t* entry = look + (code << (kLookBits - length));
        for (unsigned extra = 0; extra < 1u << size; ++extra) {
            const uint32_t packed = pack(length + size, advance(symbol, dc), extend(extra, size));
            for (int i = 0; i < 1 << spare; ++i) *entry++ = packed;
        }
    }
};

}  // namespace fl
