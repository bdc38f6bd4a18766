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

// What a table entry says of one symbol and the additional bits behind it.
struct Coefficient {
    int bits;          // to skip, in [1, 31]
    unsigned advance;  // coefficients: run + 1, or kEndOfBlock
    int value;         // 0 for a run of sixteen zeros and for the end of the block
};

// Beyond any run, so that it can be told from one.
constexpr unsigned kEndOfBlock = 128;

// The advance of an entry that is not in the table: no position in a block can take it.
constexpr unsigned kNotInTable = 192;

inline Coefficient coefficient(uint64_t window, int length, int symbol, bool dc) {
    const int size = symbol & 15;
    const unsigned extra = static_cast<unsigned>(window << length >> 1 >> (63 - size));
    // F.2.2.2: RS = 0xF0 skips sixteen zeros, any other size of 0 ends the block (as in libjpeg).
    const bool run = dc || size != 0 || symbol == 0xF0;
    const unsigned advance = run ? (dc ? 0 : symbol >> 4) + 1 : kEndOfBlock;
    return {length + size, advance, extend(extra, size)};
}

// One look-up for a DC difference: bits to skip (8; an entry of 0 = not in the table), unused (8),
// the value (16).
struct DcTable {
    uint16_t look[1 << kLookBits];
    HuffmanTable huffman;
    HuffmanSpec spec;  // what it was built from: the tables of the last image often serve the next
    bool built = false;

    Status build(const HuffmanSpec& from);

    // For what is not in the table; needs 31 bits in the window. False = no such code.
    __attribute__((noinline)) Coefficient find(uint64_t window) const {
        const int code = huffman.find(window);
        if (code == 0) return {0, 0, 0};
        return coefficient(window, code >> 8, code & 0xFF, true);
    }
};

// One AC coefficient, or two where both fit the look-up. A single one is first and last.
struct AcEntry {
    uint32_t
        skip;  // bits to skip (8), coefficients to advance to the first (8), 0 (8), to the last (8)
    uint32_t values;  // of the first (16), of the last (16)

    static AcEntry of(const Coefficient& c) {
        const uint32_t value = static_cast<uint16_t>(c.value);
        return {static_cast<uint32_t>(c.bits) | c.advance << 8 | c.advance << 24,
                value | value << 16};
    }
    unsigned bits() const { return skip & 0xFF; }
    size_t first() const { return static_cast<uint8_t>(skip >> 8); }
    size_t last() const { return skip >> 24; }
};

struct AcTable {
    AcEntry look[1 << kLookBits];
    HuffmanTable huffman;
    HuffmanSpec spec;
    bool built = false;

    Status build(const HuffmanSpec& from);

    // One coefficient, where the table would not do; needs 31 bits in the window. All 0 = no such
    // code.
    __attribute__((noinline)) AcEntry find(uint64_t window) const {
        const int code = huffman.find(window);
        if (code == 0) return {0, 0};
        return AcEntry::of(coefficient(window, code >> 8, code & 0xFF, false));
    }
};

namespace huffman_detail {

// Call put(first, last, coefficient) for each code whose additional bits fit the look-up as well:
// window prefixes in [first, last) mean that coefficient.
template <typename Put>
inline void each_entry(const HuffmanSpec& spec, bool dc, Put put) {
    uint32_t code = 0;
    int index = 0;
    for (int length = 1; length <= kLookBits; ++length, code <<= 1) {
        for (int i = 0; i < spec.counts[length]; ++i, ++code) {
            const int symbol = spec.symbols[index++], spare = kLookBits - length - (symbol & 15);
            if (spare < 0) continue;
            for (uint32_t extra = 0; extra < 1u << (symbol & 15); ++extra) {
                const uint32_t prefix = (code << (symbol & 15) | extra) << spare;
                const uint64_t window = uint64_t{prefix} << (64 - kLookBits);
                put(prefix, prefix + (1u << spare), coefficient(window, length, symbol, dc));
            }
        }
    }
}

}  // namespace huffman_detail

inline Status DcTable::build(const HuffmanSpec& from) {
    if (built && std::memcmp(&spec, &from, sizeof spec) == 0) return kOk;
    built = false;
    for (int i = 0; i < from.total; ++i)
        if (from.symbols[i] > 15) return kBadHuffmanTable;
    const Status status = huffman.build(from);
    if (status != kOk) return status;
    std::memset(look, 0, sizeof look);
    huffman_detail::each_entry(from, true, [&](uint32_t i, uint32_t end, const Coefficient& c) {
        for (; i < end; ++i) look[i] = static_cast<uint16_t>(c.value * 16 + c.bits);
    });
    spec = from;
    built = true;
    return kOk;
}

inline Status AcTable::build(const HuffmanSpec& from) {
    if (built && std::memcmp(&spec, &from, sizeof spec) == 0) return kOk;
    built = false;
    const Status status = huffman.build(from);
    if (status != kOk) return status;
    constexpr uint32_t kSize = 1 << kLookBits;
    AcEntry single[kSize];
    for (AcEntry& entry : single) entry = {kNotInTable << 24, 0};
    huffman_detail::each_entry(from, false, [&](uint32_t i, uint32_t end, const Coefficient& c) {
        for (; i < end; ++i) single[i] = AcEntry::of(c);
    });
    for (uint32_t i = 0; i < kSize; ++i) {
        const AcEntry entry = look[i] = single[i];
        if (entry.bits() == 0 || entry.first() == kEndOfBlock) continue;
        const AcEntry& next = single[(i << entry.bits()) % kSize];
        const uint32_t bits = entry.bits() + next.bits();
        if (next.bits() == 0 || bits > kLookBits) continue;
        const uint32_t first = entry.skip & 0xFF00,
                       last = (entry.skip & 0xFF000000) + (next.skip & 0xFF000000);
        look[i] = {bits | first | last, (entry.values & 0xFFFF) | next.values << 16};
    }
    spec = from;
    built = true;
    return kOk;
}

}  // namespace fl
