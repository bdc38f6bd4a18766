// Entropy-coded data: from the stuffed bytes between two markers (T.81, B.1.1.5) to bits.
//
// `next_marker` finds the end of an interval. `copy_interval` copies an interval without its
// stuffed zeros and puts kBitPadding zero bytes behind it. BitReader then refills eight bytes at a
// time without a branch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/simd.hpp"

namespace fl {

// A reader may stand at most 8 bytes behind the last byte, and loads 8 from there.
constexpr size_t kBitPadding = 16;

// Between the byte order of this machine and the order in which the first byte is the highest.
inline uint64_t big_endian(uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}
inline uint64_t load_big64(const uint8_t* p) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    return big_endian(word);
}
inline uint64_t load_little64(const uint8_t* p) { return __builtin_bswap64(load_big64(p)); }
inline void store_big64(uint64_t word, uint8_t* p) {
    word = big_endian(word);
    std::memcpy(p, &word, 8);
}

// Which bytes of `word` are FF, as the top bit of each; exact up to the lowest such byte, and zero
// only where no byte is FF. (Zero-byte test of Mycroft on the complement.)
inline uint64_t find_ff(uint64_t word) {
    return (~word - 0x0101010101010101) & word & 0x8080808080808080;
}

#if FL_X86

// Which of 64 bytes are FF, and which of these no zero follows; reads 65 bytes.
struct Ffs {
    uint64_t all, not_stuffed;
};
FL_AVX512 inline Ffs find_ffs(__m512i bytes, const uint8_t* at) {
    const uint64_t all = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(-1));
    if (all == 0) return {0, 0};
    const __m512i next = _mm512_loadu_si512(at + 1);
    return {all, _mm512_mask_test_epi8_mask(all, next, next)};
}

// To the first FF without a zero behind it, or to where fewer than 65 bytes are left.
FL_AVX512 inline const uint8_t* pass_stuffed(const uint8_t* at, const uint8_t* end) {
    for (; end - at > 64; at += 64) {
        const Ffs ffs = find_ffs(_mm512_loadu_si512(at), at);
        if (ffs.not_stuffed) return at + __builtin_ctzll(ffs.not_stuffed);
    }
    return at;
}

// The same, and copies what it passes without stuffed zeros.
FL_AVX512 inline void copy_stuffed(const uint8_t*& at, const uint8_t* end, uint8_t*& out) {
    while (end - at > 64) {
        const __m512i bytes = _mm512_loadu_si512(at);
        const Ffs ffs = find_ffs(bytes, at);
        const uint64_t zeros = ffs.all << 1;
        if (ffs.not_stuffed) {
            const int sound = __builtin_ctzll(ffs.not_stuffed);
            const uint64_t kept = _bzhi_u64(~zeros, sound);
            _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(kept, bytes));
            out += _mm_popcnt_u64(kept);
            at += sound;
            return;
        }
        _mm512_storeu_si512(out, _mm512_maskz_compress_epi8(~zeros, bytes));
        out += _mm_popcnt_u64(~zeros);
        at += 64 + (ffs.all >> 63);
    }
}

#endif

// Position of the first FF that begins a marker (neither stuffed nor a fill byte), or `end`.
inline const uint8_t* next_marker(const uint8_t* at, const uint8_t* end) {
#if FL_X86
    if (use_avx512()) at = pass_stuffed(at, end);
#endif
    while (at < end) {
        if (end - at >= 8) {
            const uint64_t found = find_ff(load_little64(at));
            if (found == 0) {
                at += 8;
                continue;
            }
            at += __builtin_ctzll(found) / 8;
        } else if (*at != 0xFF) {
            ++at;
            continue;
        }
        if (end - at < 2) return end;
        if (at[1] == 0)
            at += 2;
        else if (at[1] == 0xFF)
            at += 1;
        else
            return at;
    }
    return end;
}

// Copies from `at` to the next marker or `end` without stuffed zeros and fill bytes, then pads.
// `out` has room for as many bytes and kBitPadding more. Returns the number of bytes before the
// padding. `at` then stands at the marker, or at `end`.
inline size_t copy_interval(const uint8_t*& at, const uint8_t* end, uint8_t* out) {
    uint8_t* const start = out;
#if FL_X86
    if (use_avx512()) copy_stuffed(at, end, out);
#endif
    while (at < end) {
        if (end - at >= 8) {
            const uint64_t found = find_ff(load_little64(at));
            std::memcpy(out, at, 8);  // what is beyond an FF is written over
            const int sound = found == 0 ? 8 : __builtin_ctzll(found) / 8;
            at += sound;
            out += sound;
            if (sound == 8) continue;
        } else if (*at != 0xFF) {
            *out++ = *at++;
            continue;
        }
        if (end - at < 2) {
            at = end;  // an FF cut off by the end of the file
        } else if (at[1] == 0) {
            *out++ = 0xFF;
            at += 2;
        } else if (at[1] == 0xFF) {
            ++at;
        } else {
            break;
        }
    }
    std::memset(out, 0, kBitPadding);
    return out - start;
}

// Where `count` bytes of data behind `at` end: at the next byte of data, past the stuffed zeros and
// fill bytes before it, or at a marker or `end`.
inline const uint8_t* pass_data(const uint8_t* at, const uint8_t* end, size_t count) {
    while (at < end) {
        if (end - at >= 8 && count >= 8) {
            const uint64_t found = find_ff(load_little64(at));
            const int sound = found == 0 ? 8 : __builtin_ctzll(found) / 8;
            at += sound;
            count -= size_t(sound);
            if (sound == 8) continue;
        } else if (*at != 0xFF) {
            if (count == 0) return at;
            ++at;
            --count;
            continue;
        }
        if (end - at < 2) return end;
        if (at[1] == 0xFF) {
            ++at;
        } else if (at[1] != 0 || count == 0) {
            return at;
        } else {
            at += 2;
            --count;
        }
    }
    return end;
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

// For inner loops, in which a table's entry says what to skip. The low byte of `entry` holds the
// number of bits, in [0, 31], of which so many must have been loaded; what else it holds goes to
// the upper bits of the count, which are not read before `refill_entries` clears them.
FL_INLINE void skip_entry(BitReader& bits, uint32_t entry) {
    bits.window <<= entry & 63;
    bits.count = static_cast<int>(static_cast<uint32_t>(bits.count) - entry);
}
FL_INLINE void refill_entries(BitReader& bits) {
    bits.count &= 63;
    bits.refill();
}

// EXTEND of T.81 figure F.12: the signed value of `size` additional bits, size in [0, 16].
inline int extend(unsigned bits, int size) {
    const int value = static_cast<int>(bits), half = 1 << size >> 1;
    return value -
           ((value - half) >> 31 & ((1 << size) - 1));  // without a branch: signs are random
}

}  // namespace fl
