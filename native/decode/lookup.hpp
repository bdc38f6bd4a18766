// The tables of the box decoder's hot loop: one look-up of kLookBits bits yields code lengths, zero
// runs and coefficient values together.
//
// Measured on photographs of 1.2 bytes a pixel, thread time of the Huffman part: one coefficient an
// entry 0.209 ms a crop, two where both fit 0.193 ms; 10 bits + 10 %, 12 bits + 5 % (the tables
// then outgrow the nearest cache, and a window lasts for four look-ups only).
#pragma once

#include <cstdint>
#include <cstring>

#include "core/bits.hpp"
#include "core/header.hpp"
#include "core/huffman.hpp"

namespace fl {

// What a table entry says of one symbol and the additional bits behind it.
struct Coefficient {
    int bits;          // to skip, in [1, 31]
    unsigned advance;  // coefficients: run + 1, or kEndOfBlock
    int value;         // 0 for a run of sixteen zeros and for the end of the block
};

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

// One coefficient, or two of AC where both fit the look-up. A single one is first and last.
struct PairEntry {
    // From the lowest on: bits (8), coefficients to advance to the first (8), 0 (8), to the last
    // (8), values of the first (16) and of the last (16). One word, so that it is loaded once.
    uint64_t word;

    static PairEntry of(const Coefficient& c) {
        const uint64_t value = static_cast<uint16_t>(c.value);
        return {static_cast<uint64_t>(c.bits) | c.advance << 8 | uint64_t{c.advance} << 24 |
                value << 32 | value << 48};
    }
    // The first of a single one, then the single one `next`.
    static PairEntry of(const PairEntry& first, const PairEntry& next) {
        const uint64_t value = first.word & 0xFFFF00000000, last = next.word & 0xFFFF0000FF0000FF;
        return {(first.word & 0xFF00FFFF) + last + value};
    }
    unsigned bits() const { return word & 0xFF; }
    size_t first() const { return static_cast<uint8_t>(word >> 8); }
    size_t last() const { return static_cast<uint32_t>(word) >> 24; }
    int16_t first_value() const { return static_cast<int16_t>(word >> 32); }
    int16_t last_value() const { return static_cast<int16_t>(word >> 48); }
};

struct PairTable {
    PairEntry look[1 << kLookBits];
    HuffmanTable huffman;
    HuffmanSpec spec;  // of which it was built: the next image often has the same tables
    bool is_dc = false;
    bool built = false;

    Status build(const HuffmanSpec& from, bool dc);

    // One coefficient, where the table would not do; needs 31 bits in the window. 0 = no such code.
    __attribute__((noinline)) PairEntry find(uint64_t window) const {
        const int code = huffman.find(window);
        if (code == 0) return {0};
        return PairEntry::of(coefficient(window, code >> 8, code & 0xFF, is_dc));
    }
};

namespace lookup_detail {

// Calls put(first, last, coefficient) for each code whose additional bits fit the look-up as well:
// window prefixes in [first, last) mean that coefficient.
template <typename Put>
inline void each_entry(const HuffmanSpec& spec, bool dc, Put put) {
    each_code(spec, kLookBits, [&](uint32_t code, int length, int symbol) {
        const int size = symbol & 15, spare = kLookBits - length - size;
        if (spare < 0) return;
        for (uint32_t extra = 0; extra < 1u << size; ++extra) {
            const uint32_t prefix = (code << size | extra) << spare;
            const uint64_t window = uint64_t{prefix} << (64 - kLookBits);
            put(prefix, prefix + (1u << spare), coefficient(window, length, symbol, dc));
        }
    });
}

}  // namespace lookup_detail

inline Status PairTable::build(const HuffmanSpec& from, bool dc) {
    if (built && is_dc == dc && std::memcmp(&spec, &from, sizeof spec) == 0) return kOk;
    built = false;
    if (dc)
        for (int i = 0; i < from.total; ++i)
            if (from.symbols[i] > 15) return kBadHuffmanTable;
    if (const Status status = huffman.build(from)) return status;
    constexpr uint32_t kSize = 1 << kLookBits;
    PairEntry single[kSize];
    for (PairEntry& entry : single) entry = {uint64_t{kNotInTable} << 24};
    lookup_detail::each_entry(from, dc, [&](uint32_t i, uint32_t end, const Coefficient& c) {
        for (; i < end; ++i) single[i] = PairEntry::of(c);
    });
    for (uint32_t i = 0; i < kSize; ++i) {
        const PairEntry entry = look[i] = single[i];
        if (dc || entry.bits() == 0 || entry.first() == kEndOfBlock) continue;
        const PairEntry next = single[(i << entry.bits()) % kSize];
        if (next.bits() == 0 || entry.bits() + next.bits() > kLookBits) continue;
        look[i] = PairEntry::of(entry, next);
    }
    spec = from;
    is_dc = dc;
    built = true;
    return kOk;
}

}  // namespace fl
