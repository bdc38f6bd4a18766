// CRC-32 as in zlib and PNG (reflected polynomial 0xEDB88320): eight table look-ups for eight
// bytes, or carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic Polynomials
// Using PCLMULQDQ", Intel 2009), 64 bytes a step, where the processor has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/simd.hpp"

namespace fl {

namespace crc_detail {

struct Tables {
    uint32_t t[8][256];
    constexpr Tables() : t() {
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t crc = i;
            for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
            t[0][i] = crc;
        }
        for (int k = 1; k < 8; ++k)
            for (int i = 0; i < 256; ++i) t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 0xFF];
    }
};
inline constexpr Tables kTables{};

// `crc` is the register, not yet inverted.
inline uint32_t update(uint32_t crc, const uint8_t* p, size_t n) {
    const auto& t = kTables.t;
    for (; n >= 8; n -= 8, p += 8) {
        const uint32_t low = crc ^ (p[0] | p[1] << 8 | p[2] << 16 | uint32_t{p[3]} << 24);
        crc = t[7][low & 0xFF] ^ t[6][low >> 8 & 0xFF] ^ t[5][low >> 16 & 0xFF] ^ t[4][low >> 24] ^
              t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
    }
    for (; n > 0; --n, ++p) crc = crc >> 8 ^ t[0][(crc ^ *p) & 0xFF];
    return crc;
}

#if FL_X86
#define FL_CLMUL __attribute__((target("pclmul,sse4.1")))

FL_CLMUL inline __m128i fold(__m128i value, __m128i next, __m128i constants) {
    const __m128i low = _mm_clmulepi64_si128(value, constants, 0x00);
    const __m128i high = _mm_clmulepi64_si128(value, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

FL_CLMUL inline __m128i load16(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

// n a multiple of 16, at least 64. Constants: x^(512 +- 32) and x^(128 +- 32) mod P, bit-reflected,
// as in the paper; the last 16 bytes are left to the tables.
FL_CLMUL inline uint32_t update_clmul(uint32_t crc, const uint8_t* p, size_t n) {
    const __m128i by512 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4);
    const __m128i by128 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
    __m128i x0 = _mm_xor_si128(load16(p), _mm_cvtsi32_si128(static_cast<int>(crc)));
    __m128i x1 = load16(p + 16), x2 = load16(p + 32), x3 = load16(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        x0 = fold(x0, load16(p), by512);
        x1 = fold(x1, load16(p + 16), by512);
        x2 = fold(x2, load16(p + 32), by512);
        x3 = fold(x3, load16(p + 48), by512);
    }
    x0 = fold(fold(fold(x0, x1, by128), x2, by128), x3, by128);
    for (; n >= 16; p += 16, n -= 16) x0 = fold(x0, load16(p), by128);
    uint8_t rest[16];
    std::memcpy(rest, &x0, 16);
    return update(0, rest, 16);
}

inline bool has_clmul() {
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}
#endif

}  // namespace crc_detail

inline uint32_t crc32(const uint8_t* p, size_t n) {
    uint32_t crc = 0xFFFFFFFF;
#if FL_X86
    if (n >= 64 && use_avx2() && crc_detail::has_clmul()) {
        const size_t whole = n & ~size_t{15};
        crc = crc_detail::update_clmul(crc, p, whole);
        p += whole;
        n -= whole;
    }
#endif
    return ~crc_detail::update(crc, p, n);
}

}  // namespace fl
