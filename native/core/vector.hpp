// Vectors of 16-bit words, 16 with AVX2 and 32 with AVX-512, under the same names for both: what
// decode/colour_vectors.hpp and decode/resize_vectors.hpp are written in. All but load and store
// keep to 128-bit lanes, as the processor's instructions do.
#pragma once

#include <cstdint>

#include "core/simd.hpp"

#if FL_X86

namespace fl {

#define FL_BOTH_WIDTHS(name, instruction)                                                    \
    FL_AVX2 inline __m256i name(__m256i a, __m256i b) { return _mm256_##instruction(a, b); } \
    FL_AVX512 inline __m512i name(__m512i a, __m512i b) { return _mm512_##instruction(a, b); }

FL_BOTH_WIDTHS(add16, add_epi16)
FL_BOTH_WIDTHS(sub16, sub_epi16)
FL_BOTH_WIDTHS(add32, add_epi32)
FL_BOTH_WIDTHS(multiply_add, madd_epi16)
FL_BOTH_WIDTHS(multiply_high, mulhi_epi16)
FL_BOTH_WIDTHS(pack32, packs_epi32)
FL_BOTH_WIDTHS(pack_bytes, packus_epi16)
FL_BOTH_WIDTHS(low8, unpacklo_epi8)
FL_BOTH_WIDTHS(high8, unpackhi_epi8)
FL_BOTH_WIDTHS(low16, unpacklo_epi16)
FL_BOTH_WIDTHS(high16, unpackhi_epi16)
FL_BOTH_WIDTHS(shuffle8, shuffle_epi8)
#undef FL_BOTH_WIDTHS

template <int kBits>
FL_AVX2 inline __m256i shift16(__m256i a) {
    return _mm256_srai_epi16(a, kBits);
}
template <int kBits>
FL_AVX512 inline __m512i shift16(__m512i a) {
    return _mm512_srai_epi16(a, kBits);
}
template <int kBits>
FL_AVX2 inline __m256i shift32(__m256i a) {
    return _mm256_srai_epi32(a, kBits);
}
template <int kBits>
FL_AVX512 inline __m512i shift32(__m512i a) {
    return _mm512_srai_epi32(a, kBits);
}
FL_AVX2 inline void store(void* at, __m256i a) {
    _mm256_storeu_si256(static_cast<__m256i*>(at), a);
}
FL_AVX512 inline void store(void* at, __m512i a) { _mm512_storeu_si512(at, a); }

namespace avx2 {
using Vector = __m256i;
FL_AVX2 inline Vector load(const void* at) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}
FL_AVX2 inline Vector load_samples(const uint8_t* at) {  // bytes become words
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}
FL_AVX2 inline Vector all16(int value) { return _mm256_set1_epi16(static_cast<int16_t>(value)); }
FL_AVX2 inline Vector all32(int value) { return _mm256_set1_epi32(value); }
FL_AVX2 inline Vector all_lanes(__m128i lane) { return _mm256_broadcastsi128_si256(lane); }
}  // namespace avx2

namespace avx512 {
using Vector = __m512i;
FL_AVX512 inline Vector load(const void* at) { return _mm512_loadu_si512(at); }
FL_AVX512 inline Vector load_samples(const uint8_t* at) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}
FL_AVX512 inline Vector all16(int value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }
FL_AVX512 inline Vector all32(int value) { return _mm512_set1_epi32(value); }
FL_AVX512 inline Vector all_lanes(__m128i lane) { return _mm512_broadcast_i32x4(lane); }
}  // namespace avx512

}  // namespace fl

#endif
