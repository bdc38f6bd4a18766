// Entropy-coded bytes: the way from stuffed bytes between markers (T.81 B.1.1.5) to bits.
//
// `next_marker` finds where an interval ends; `unstuff` copies it without its stuffed zeros and
// puts kBitPadding zero bytes behind it; BitReader then refills eight bytes at a time without a
// branch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fl {

// A reader may stand at most 8 bytes behind the last byte, and loads 8 from there.
constexpr size_t kBitPadding = 16;

inline uint64_t load_big64(const uint8_t* p) {
    uint64_t word;
    std::memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

// Position of the first FF that begins a marker (neither stuffed nor a fill byte), or `end`.
inline const uint8_t* next_marker(const uint8_t* at, const uint8_t* end) {
    while (at < end) {
        at = static_cast<const uint8_t*>(std::memchr(at, 0xFF, end - at));
        if (at == nullptr || end - at < 2) return end;
        if (at[1] == 0)
            at += 2;
        else if (at[1] == 0xFF)
            at += 1;
        else
            return at;
    }
    return end;
}

// Copy [begin, end), an interval without markers, dropping stuffed zeros and fill bytes; then pad.
// `out` has room for end - begin + kBitPadding bytes. Returns the bytes written before the padding.
inline size_t unstuff(const uint8_t* begin, const uint8_t* end, uint8_t* out) {
    uint8_t* const start = out;
    while (begin < end) {
        const void* found = std::memchr(begin, 0xFF, end - begin);
        const uint8_t* stop = found ? static_cast<const uint8_t*>(found) : end;
        std::memcpy(out, begin, stop - begin);
        out += stop - begin;
        begin = stop;
        if (begin == end) break;
        if (end - begin >= 2 && begin[1] == 0) {
            *out++ = 0xFF;
            begin += 2;
        } else {
            ++begin;  // a fill byte, or an FF cut off by the end of the file
        }
    }
    std::memset(out, 0, kBitPadding);
    return out - start;
}

// Reads bits, most significant first, from unstuffed bytes with kBitPadding behind them. Reading
// past the end is safe and yields zeros; `bits_left` then is negative and stays so.
struct BitReader {
    uint64_t window = 0;  // the next bits, from the top
    int count = 0;        // how many of them are real
    const uint8_t* next = nullptr;
    const uint8_t* end = nullptr;

    BitReader() = default;
    BitReader(const uint8_t* data, size_t size) : next(data), end(data + size) {}

    // At least 56 bits afterwards. (Giesen, "Reading bits in far too many ways", part 2,
    // variant 4.)
    void refill() {
        window |= load_big64(next) >> count;
        next += (63 - count) >> 3;
        count |= 56;
        // A sound interval never needs to stand more than 7 bytes behind its end.
        if (next > end + 8) next = end + 8;
    }
    unsigned peek(int n) const {
        return static_cast<unsigned>(window >> (64 - n));
    }  // n in [1, 32]
    void skip(int n) {
        window <<= n;
        count -= n;
    }
    // n in [0, 16]; needs n bits in the window.
    unsigned take(int n) {
        const unsigned value = static_cast<unsigned>(window >> 1 >> (63 - n));
        skip(n);
        return value;
    }
    // Bits between the reader and the end; negative once it ran past it.
    ptrdiff_t bits_left() const { return 8 * (end - next) + count; }
    // The interval was consumed but for the padding bits of its last byte (F.1.2.3).
    bool complete() const {
        const ptrdiff_t left = bits_left();
        return left >= 0 && left < 8;
    }
};

// EXTEND of T.81 figure F.12: the signed value of `size` additional bits, size in [0, 16].
inline int extend(unsigned bits, int size) {
    const int value = static_cast<int>(bits), half = 1 << size >> 1;
    return value -
           ((value - half) >> 31 & ((1 << size) - 1));  // without a branch: signs are random
}

}  // namespace fl
