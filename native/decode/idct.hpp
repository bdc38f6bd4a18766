// The inverse DCT: libjpeg's "islow" (jidctint.c, after Loeffler, Ligtenberg and Moschytz, ICASSP
// 1989), bit for bit; and for pictures that are shrunk anyway, 4x4 samples from as many of the
// lowest frequencies (jidctint.c of libjpeg 7 and later). jidctred.c, which libjpeg-turbo
// has, averages neighbouring samples instead; the resize that follows is nearer to the exact one
// without that: by 0.5 to 1 dB on crops of photographs.
//
// Blocks come in natural order and leave *transposed*: column x of a block begins at `out + x *
// stride`, and its samples are consecutive bytes. The second pass ends that way, so a transposition
// is saved, and the horizontal resize then works on whole vectors (resize.hpp).
//
// Out-of-range input (damaged files) wraps and saturates as in libjpeg-turbo's SIMD code, so that
// both paths here agree on any input.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/simd.hpp"

namespace fl {

namespace idct_detail {

// FIX(x) = x * 2^13, as in jidctint.c.
constexpr int kFix0298 = 2446, kFix0390 = 3196, kFix0541 = 4433, kFix0765 = 6270, kFix0899 = 7373,
              kFix1175 = 9633, kFix1501 = 12299, kFix1847 = 15137, kFix1961 = 16069,
              kFix2053 = 16819, kFix2562 = 20995, kFix3072 = 25172;

FL_INLINE int16_t wrap16(int value) { return static_cast<int16_t>(value); }
FL_INLINE int16_t saturate16(int value) {
    return static_cast<int16_t>(value < -32768 ? -32768 : value > 32767 ? 32767 : value);
}
FL_INLINE uint8_t to_sample(int value) {
    return static_cast<uint8_t>((value < -128 ? -128 : value > 127 ? 127 : value) + 128);
}
FL_INLINE int32_t mul(int a, int constant) {  // 16 x 16 bits, never overflows
    return a * constant;
}
FL_INLINE int32_t add(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
FL_INLINE int32_t sub(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}

// One 1-D transform of eight values `step` apart; results are rounded off by `shift` bits.
FL_INLINE void transform(const int16_t* in, int16_t* out, int step, int shift) {
    const int32_t round = 1 << (shift - 1);
    const int c0 = in[0], c1 = in[step], c2 = in[2 * step], c3 = in[3 * step];
    const int c4 = in[4 * step], c5 = in[5 * step], c6 = in[6 * step], c7 = in[7 * step];
    const int32_t even2 = add(mul(c2, kFix0541), mul(c6, kFix0541 - kFix1847));
    const int32_t even3 = add(mul(c2, kFix0541 + kFix0765), mul(c6, kFix0541));
    const int32_t even0 = wrap16(c0 + c4) * 8192, even1 = wrap16(c0 - c4) * 8192;
    const int32_t t10 = add(even0, even3), t13 = sub(even0, even3);
    const int32_t t11 = add(even1, even2), t12 = sub(even1, even2);
    const int z3 = wrap16(c7 + c3), z4 = wrap16(c5 + c1);
    const int32_t s3 = add(mul(z3, kFix1175 - kFix1961), mul(z4, kFix1175));
    const int32_t s4 = add(mul(z3, kFix1175), mul(z4, kFix1175 - kFix0390));
    const int32_t odd0 = add(add(mul(c7, kFix0298 - kFix0899), mul(c1, -kFix0899)), s3);
    const int32_t odd1 = add(add(mul(c5, kFix2053 - kFix2562), mul(c3, -kFix2562)), s4);
    const int32_t odd2 = add(add(mul(c5, -kFix2562), mul(c3, kFix3072 - kFix2562)), s3);
    const int32_t odd3 = add(add(mul(c7, -kFix0899), mul(c1, kFix1501 - kFix0899)), s4);
    out[0] = saturate16(add(add(t10, odd3), round) >> shift);
    out[7 * step] = saturate16(add(sub(t10, odd3), round) >> shift);
    out[step] = saturate16(add(add(t11, odd2), round) >> shift);
    out[6 * step] = saturate16(add(sub(t11, odd2), round) >> shift);
    out[2 * step] = saturate16(add(add(t12, odd1), round) >> shift);
    out[5 * step] = saturate16(add(sub(t12, odd1), round) >> shift);
    out[3 * step] = saturate16(add(add(t13, odd0), round) >> shift);
    out[4 * step] = saturate16(add(sub(t13, odd0), round) >> shift);
}

constexpr int kPass1Shift = 13 - 2, kPass2Shift = 13 + 2 + 3;

inline void idct8_portable(const int16_t* block, const int16_t* quant, uint8_t* out,
                           ptrdiff_t stride) {
    int16_t work[64];
    for (int i = 0; i < 64; ++i) work[i] = wrap16(block[i] * quant[i]);
    for (int x = 0; x < 8; ++x) transform(work + x, work + x, 8, kPass1Shift);
    int16_t turned[64];
    for (int y = 0; y < 8; ++y)
        for (int x = 0; x < 8; ++x) turned[8 * x + y] = work[8 * y + x];
    for (int y = 0; y < 8; ++y) transform(turned + y, turned + y, 8, kPass2Shift);
    for (int x = 0; x < 8; ++x)
        for (int y = 0; y < 8; ++y) out[x * stride + y] = to_sample(turned[8 * x + y]);
}

// Four samples from four frequencies: 1.307 = sqrt(2) cos(pi / 8), 0.541 = sqrt(2) cos(3 pi / 8).
constexpr int kFix1307 = kFix0541 + kFix0765;

FL_INLINE void transform4(const int16_t* in, int16_t* out, int step, int shift) {
    const int c0 = in[0], c1 = in[step], c2 = in[2 * step], c3 = in[3 * step];
    const int32_t round = 1 << (shift - 1);
    const int32_t even0 = mul(c0 + c2, 8192) + round, even1 = mul(c0 - c2, 8192) + round;
    const int32_t odd0 = mul(c1, kFix1307) + mul(c3, kFix0541);
    const int32_t odd1 = mul(c1, kFix0541) - mul(c3, kFix1307);
    out[0] = saturate16((even0 + odd0) >> shift);
    out[step] = saturate16((even1 + odd1) >> shift);
    out[2 * step] = saturate16((even1 - odd1) >> shift);
    out[3 * step] = saturate16((even0 - odd0) >> shift);
}

inline void idct4_portable(const int16_t* block, const int16_t* quant, uint8_t* out,
                           ptrdiff_t stride) {
    int16_t work[32];
    for (int i = 0; i < 32; ++i) work[i] = wrap16(block[i] * quant[i]);
    for (int x = 0; x < 4; ++x) transform4(work + x, work + x, 8, kPass1Shift);
    for (int y = 0; y < 4; ++y) {
        int16_t row[4];
        transform4(work + 8 * y, row, 1, kPass2Shift);
        for (int x = 0; x < 4; ++x) out[x * stride + y] = to_sample(row[x]);
    }
}

#if FL_X86

FL_AVX2 inline __m256i pair(int even, int odd) {
    return _mm256_set1_epi32(static_cast<int>(static_cast<uint32_t>(static_cast<uint16_t>(even)) |
                                              static_cast<uint32_t>(odd) << 16));
}

struct Wide {
    __m256i low, high;
};

FL_AVX2 inline Wide interleave(__m256i a, __m256i b) {
    return {_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)};
}
FL_AVX2 inline Wide times(const Wide& ab, int a, int b) {
    const __m256i constants = pair(a, b);
    return {_mm256_madd_epi16(ab.low, constants), _mm256_madd_epi16(ab.high, constants)};
}
FL_AVX2 inline Wide plus(const Wide& a, const Wide& b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
FL_AVX2 inline Wide minus(const Wide& a, const Wide& b) {
    return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}
FL_AVX2 inline Wide scaled(__m256i a) {  // a << 13, in 32 bits
    const __m256i zero = _mm256_setzero_si256();
    return {_mm256_srai_epi32(_mm256_unpacklo_epi16(zero, a), 3),
            _mm256_srai_epi32(_mm256_unpackhi_epi16(zero, a), 3)};
}
template <int kShift>
FL_AVX2 inline __m256i descale(const Wide& a) {
    return _mm256_packs_epi32(_mm256_srai_epi32(a.low, kShift), _mm256_srai_epi32(a.high, kShift));
}

// The same 1-D transform on sixteen columns: eight of one block, eight of another.
template <int kShift>
FL_AVX2 inline void transform(__m256i (&r)[8]) {
    const __m256i half = _mm256_set1_epi32(1 << (kShift - 1));
    const Wide round = {half, half};
    const Wide p26 = interleave(r[2], r[6]);
    const Wide even3 = times(p26, kFix0541 + kFix0765, kFix0541);
    const Wide even2 = times(p26, kFix0541, kFix0541 - kFix1847);
    const Wide even0 = plus(scaled(_mm256_add_epi16(r[0], r[4])), round);
    const Wide even1 = plus(scaled(_mm256_sub_epi16(r[0], r[4])), round);
    const Wide t10 = plus(even0, even3), t13 = minus(even0, even3);
    const Wide t11 = plus(even1, even2), t12 = minus(even1, even2);
    const Wide z = interleave(_mm256_add_epi16(r[7], r[3]), _mm256_add_epi16(r[5], r[1]));
    const Wide s3 = times(z, kFix1175 - kFix1961, kFix1175);
    const Wide s4 = times(z, kFix1175, kFix1175 - kFix0390);
    const Wide p71 = interleave(r[7], r[1]), p53 = interleave(r[5], r[3]);
    const Wide odd0 = plus(times(p71, kFix0298 - kFix0899, -kFix0899), s3);
    const Wide odd3 = plus(times(p71, -kFix0899, kFix1501 - kFix0899), s4);
    const Wide odd1 = plus(times(p53, kFix2053 - kFix2562, -kFix2562), s4);
    const Wide odd2 = plus(times(p53, -kFix2562, kFix3072 - kFix2562), s3);
    r[0] = descale<kShift>(plus(t10, odd3));
    r[7] = descale<kShift>(minus(t10, odd3));
    r[1] = descale<kShift>(plus(t11, odd2));
    r[6] = descale<kShift>(minus(t11, odd2));
    r[2] = descale<kShift>(plus(t12, odd1));
    r[5] = descale<kShift>(minus(t12, odd1));
    r[3] = descale<kShift>(plus(t13, odd0));
    r[4] = descale<kShift>(minus(t13, odd0));
}

FL_AVX2 inline void transpose(__m256i (&r)[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_epi16(r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        b[4 * i] = _mm256_unpacklo_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi32(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        r[2 * i] = _mm256_unpacklo_epi64(b[i], b[i + 4]);
        r[2 * i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 4]);
    }
}

FL_AVX2 inline __m256i two_rows(const int16_t* a, const int16_t* b) {
    const __m256i low = _mm256_castsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(a)));
    return _mm256_inserti128_si256(low, _mm_load_si128(reinterpret_cast<const __m128i*>(b)), 1);
}

FL_AVX2 inline void store_columns(__m256i two, uint8_t* a, uint8_t* b, ptrdiff_t stride) {
    const __m128i low = _mm256_castsi256_si128(two), high = _mm256_extracti128_si256(two, 1);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(a), low);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(a + stride), _mm_unpackhi_epi64(low, low));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(b), high);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(b + stride), _mm_unpackhi_epi64(high, high));
}

template <int kRows>
FL_AVX2 inline void dequantise(const int16_t* a, const int16_t* b, const int16_t* quant,
                               __m256i (&r)[kRows]) {
    for (int i = 0; i < kRows; ++i) {
        const __m128i* q = reinterpret_cast<const __m128i*>(quant + 8 * i);
        r[i] = _mm256_mullo_epi16(two_rows(a + 8 * i, b + 8 * i),
                                  _mm256_broadcastsi128_si256(_mm_load_si128(q)));
    }
}

// Two blocks of one component, one in each half of the registers. Three of four blocks have nothing
// in their upper frequencies, but to ask costs more than to multiply zeros: wrong guesses of the
// branch took 4 % of a crop.
FL_AVX2 inline void idct8_avx2(const int16_t* a, const int16_t* b, const int16_t* quant,
                               uint8_t* out_a, uint8_t* out_b, ptrdiff_t stride) {
    __m256i r[8];
    dequantise(a, b, quant, r);
    transform<kPass1Shift>(r);
    transpose(r);
    transform<kPass2Shift>(r);
    const __m256i centre = _mm256_set1_epi8(-128);
    for (int x = 0; x < 8; x += 2) {
        const __m256i two = _mm256_xor_si256(_mm256_packs_epi16(r[x], r[x + 1]), centre);
        store_columns(two, out_a + x * stride, out_b + x * stride, stride);
    }
}

// The 1-D transform to four samples, of pairs of frequencies 0 and 2, 1 and 3; eight of them.
template <int kShift>
FL_AVX2 inline void transform4(__m256i p02, __m256i p13, __m256i& first, __m256i& second) {
    const __m256i round = _mm256_set1_epi32(1 << (kShift - 1));
    const __m256i even0 = _mm256_add_epi32(_mm256_madd_epi16(p02, pair(8192, 8192)), round);
    const __m256i even1 = _mm256_add_epi32(_mm256_madd_epi16(p02, pair(8192, -8192)), round);
    const __m256i odd0 = _mm256_madd_epi16(p13, pair(kFix1307, kFix0541));
    const __m256i odd1 = _mm256_madd_epi16(p13, pair(kFix0541, -kFix1307));
    first = descale<kShift>({_mm256_add_epi32(even0, odd0), _mm256_add_epi32(even1, odd1)});
    second = descale<kShift>({_mm256_sub_epi32(even1, odd1), _mm256_sub_epi32(even0, odd0)});
}

FL_AVX2 inline void store4(uint8_t* to, int samples) { std::memcpy(to, &samples, 4); }

FL_AVX2 inline void idct4_avx2(const int16_t* a, const int16_t* b, const int16_t* quant,
                               uint8_t* out_a, uint8_t* out_b, ptrdiff_t stride) {
    __m256i r[4];
    dequantise(a, b, quant, r);
    __m256i top, bottom;  // two rows each, of four columns
    transform4<kPass1Shift>(_mm256_unpacklo_epi16(r[0], r[2]), _mm256_unpacklo_epi16(r[1], r[3]),
                            top, bottom);
    const __m256i pairs = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    top = _mm256_shuffle_epi8(top, pairs);
    bottom = _mm256_shuffle_epi8(bottom, pairs);
    __m256i left, right;  // two columns each, of four rows
    transform4<kPass2Shift>(_mm256_unpacklo_epi64(top, bottom), _mm256_unpackhi_epi64(top, bottom),
                            left, right);
    const __m256i all = _mm256_xor_si256(_mm256_packs_epi16(left, right), _mm256_set1_epi8(-128));
    const __m128i first = _mm256_castsi256_si128(all), second = _mm256_extracti128_si256(all, 1);
    store4(out_a, _mm_extract_epi32(first, 0));
    store4(out_a + stride, _mm_extract_epi32(first, 1));
    store4(out_a + 2 * stride, _mm_extract_epi32(first, 2));
    store4(out_a + 3 * stride, _mm_extract_epi32(first, 3));
    store4(out_b, _mm_extract_epi32(second, 0));
    store4(out_b + stride, _mm_extract_epi32(second, 1));
    store4(out_b + 2 * stride, _mm_extract_epi32(second, 2));
    store4(out_b + 3 * stride, _mm_extract_epi32(second, 3));
}

#endif

}  // namespace idct_detail

// One block to `size` samples a side: 8 or 4.
inline void idct_block(const int16_t* block, const int16_t* quant, int size, uint8_t* out,
                       ptrdiff_t stride) {
    if (size == 4)
        idct_detail::idct4_portable(block, quant, out, stride);
    else
        idct_detail::idct8_portable(block, quant, out, stride);
}

// Two blocks of one component to `size` samples a side: 8 or 4. Only where use_avx2() said yes.
inline void idct_blocks(const int16_t* a, const int16_t* b, const int16_t* quant, int size,
                        uint8_t* out_a, uint8_t* out_b, ptrdiff_t stride) {
#if FL_X86
    if (size == 4)
        idct_detail::idct4_avx2(a, b, quant, out_a, out_b, stride);
    else
        idct_detail::idct8_avx2(a, b, quant, out_a, out_b, stride);
#else
    (void)a, (void)b, (void)quant, (void)size, (void)out_a, (void)out_b, (void)stride;
#endif
}

}  // namespace fl
