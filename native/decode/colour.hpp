// From component planes to RGB, exactly as libjpeg: fancy upsampling (jdsample.c), then YCbCr to
// RGB (jdcolor.c) with clamping at full resolution.
//
// Planes are stored column by column (see idct.hpp). ColumnPairs yields two neighbouring pixel
// columns at a time as R, G and B, each an array of [row][2] int16: the form in which the resize
// multiplies both with one instruction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/array.hpp"
#include "core/simd.hpp"

namespace fl {

// Decoded samples around a box. Positions are relative to the first decoded sample.
struct SamplePlanes {
    const uint8_t* samples[3];  // Y, Cb, Cr: first column, first row
    ptrdiff_t stride[3];        // bytes from one column to the next
    int num_components;         // 1 or 3
    bool up_h, up_v;            // chroma is halved in this direction
    bool fancy;                 // interpolate chroma, else repeat it
    int chroma_columns;         // columns that exist in the image
};

constexpr int kRowBlock = 16;  // rows a vector of int16 holds; arrays are padded to multiples of it

inline int pad_rows(int rows) { return (rows + kRowBlock - 1) / kRowBlock * kRowBlock; }

namespace colour_detail {

FL_INLINE int clamp_sample(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

// One chroma column at luma height: times 4 where it is interpolated vertically, else as it is.
FL_INLINE void upsample_down(const uint8_t* c, bool up_v, bool fancy, int rows, int16_t* out) {
    if (!up_v) {
        for (int y = 0; y < rows; ++y) out[y] = c[y];
    } else if (fancy) {
        for (int i = 0; i < rows / 2; ++i) {
            out[2 * i] = static_cast<int16_t>(3 * c[i] + c[i - 1]);
            out[2 * i + 1] = static_cast<int16_t>(3 * c[i] + c[i + 1]);
        }
    } else {
        for (int i = 0; i < rows / 2; ++i)
            out[2 * i] = out[2 * i + 1] = static_cast<int16_t>(4 * c[i]);
    }
}

// The biases alternate between neighbours, so that halves are rounded up and down equally often.
FL_INLINE void upsample_across(const int16_t* near, const int16_t* far, bool up_v, int bias,
                               int rows, int16_t* out) {
    const int shift = up_v ? 4 : 2;
    for (int y = 0; y < rows; ++y)
        out[y] = static_cast<int16_t>(((3 * near[y] + far[y] + bias) >> shift) - 128);
}

FL_INLINE void finish_down(const int16_t* column, bool up_v, int rows, int16_t* out) {
    if (up_v) {
        for (int y = 0; y < rows; y += 2) {
            out[y] = static_cast<int16_t>(((column[y] + 1) >> 2) - 128);
            out[y + 1] = static_cast<int16_t>(((column[y + 1] + 2) >> 2) - 128);
        }
    } else {
        for (int y = 0; y < rows; ++y) out[y] = static_cast<int16_t>(column[y] - 128);
    }
}

// A chroma column and its neighbours, at luma height.
struct Neighbours {
    const int16_t *left, *near, *right;
};

// FIX(x) = x * 2^16, as in jdcolor.c.
constexpr int kRed = 91881, kGreenBlue = 22554, kGreenRed = 46802, kBlue = 116130, kHalf = 32768;

inline void to_rgb_portable(const uint8_t* y, const int16_t* cb, const int16_t* cr, int rows,
                            int16_t* const (&rgb)[3]) {  // writes every other element
    for (int i = 0; i < rows; ++i) {
        const int luma = y[i], blue = cb[i], red = cr[i];
        rgb[0][2 * i] = static_cast<int16_t>(clamp_sample(luma + ((kRed * red + kHalf) >> 16)));
        rgb[1][2 * i] = static_cast<int16_t>(
            clamp_sample(luma + ((-kGreenBlue * blue - kGreenRed * red + kHalf) >> 16)));
        rgb[2][2 * i] = static_cast<int16_t>(clamp_sample(luma + ((kBlue * blue + kHalf) >> 16)));
    }
}

#if FL_X86

// Offsets of the constants from 1, 2 and -1, so that they fit 16 bits: 1.402 = 1 + 0.402 and so on.
struct Chroma {
    __m256i red, green, blue;  // what to add to luma
};

FL_AVX2 inline __m256i half(__m256i twice) {  // rounded
    return _mm256_srai_epi16(_mm256_add_epi16(twice, _mm256_set1_epi16(1)), 1);
}

FL_AVX2 inline Chroma chroma_terms(__m256i cb, __m256i cr) {
    const __m256i cb2 = _mm256_add_epi16(cb, cb), cr2 = _mm256_add_epi16(cr, cr);
    Chroma terms;
    const __m256i red = _mm256_mulhi_epi16(cr2, _mm256_set1_epi16(kRed - 65536));
    terms.red = _mm256_add_epi16(half(red), cr);
    const __m256i blue = _mm256_mulhi_epi16(cb2, _mm256_set1_epi16(kBlue - 131072));
    terms.blue = _mm256_add_epi16(half(blue), cb2);
    const __m256i weights = _mm256_set1_epi32((65536 - kGreenRed) << 16 | (65536 - kGreenBlue));
    const __m256i round = _mm256_set1_epi32(kHalf);
    const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(cb, cr), weights);
    const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(cb, cr), weights);
    const __m256i green = _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, round), 16),
                                             _mm256_srai_epi32(_mm256_add_epi32(high, round), 16));
    terms.green = _mm256_sub_epi16(green, cr);
    return terms;
}

FL_AVX2 inline __m256i load_samples(const uint8_t* at) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

FL_AVX2 inline __m256i load_words(const int16_t* at) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

FL_AVX2 inline __m128i load_eight(const uint8_t* at) {
    return _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
}

// Sixteen rows of two columns -> pairs. Each half of a register keeps its rows, so memory holds
// rows 0-3, 8-11, 4-7, 12-15; the pack that ends the horizontal resize undoes it.
FL_AVX2 inline void store_pairs(__m256i left, __m256i right, int16_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_unpacklo_epi16(left, right));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_unpackhi_epi16(left, right));
}

// store_pairs of y + t, clamped to [0, 255]: by packing to bytes, which then spread to pairs of
// words.
FL_AVX2 inline void store_sums(__m256i y0, __m256i t0, __m256i y1, __m256i t1, int16_t* out) {
    const __m256i bytes = _mm256_packus_epi16(_mm256_add_epi16(y0, t0), _mm256_add_epi16(y1, t1));
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    const __m256i pairs = _mm256_shuffle_epi8(bytes, spread), zero = _mm256_setzero_si256();
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_unpacklo_epi8(pairs, zero));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_unpackhi_epi8(pairs, zero));
}

FL_AVX2 inline void pair_to_grey_avx2(const uint8_t* const (&y)[2], int rows, int16_t* out) {
    for (int i = 0; i < rows; i += kRowBlock)
        store_pairs(load_samples(y[0] + i), load_samples(y[1] + i), out + 2 * i);
}

FL_AVX2 inline void pair_to_rgb_avx2(const uint8_t* const (&y)[2], const int16_t* const (&cb)[2],
                                     const int16_t* const (&cr)[2], int rows,
                                     int16_t* const (&rgb)[3]) {
    for (int i = 0; i < rows; i += kRowBlock) {
        const __m256i y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const Chroma c0 = chroma_terms(load_words(cb[0] + i), load_words(cr[0] + i));
        const Chroma c1 = chroma_terms(load_words(cb[1] + i), load_words(cr[1] + i));
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}

template <bool kUpV>
FL_AVX2 inline __m256i across_avx2(__m256i near3, const int16_t* far, int bias) {
    constexpr int kShift = kUpV ? 4 : 2;
    const __m256i less = _mm256_set1_epi16(static_cast<int16_t>(bias - (128 << kShift)));
    return _mm256_srai_epi16(_mm256_add_epi16(near3, _mm256_add_epi16(load_words(far), less)),
                             kShift);
}

FL_AVX2 inline __m256i three_times(const int16_t* at) {
    const __m256i value = load_words(at);
    return _mm256_add_epi16(value, _mm256_add_epi16(value, value));
}

// upsample_across for both columns of a pair, and their colours, without a store in between.
template <bool kUpV>
FL_AVX2 inline void upsampled_to_rgb_avx2(const uint8_t* const (&y)[2], const Neighbours& cb,
                                          const Neighbours& cr, int rows,
                                          int16_t* const (&rgb)[3]) {
    constexpr int kLeftBias = kUpV ? 8 : 1, kRightBias = kUpV ? 7 : 2;
    for (int i = 0; i < rows; i += kRowBlock) {
        const __m256i y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const __m256i cb3 = three_times(cb.near + i), cr3 = three_times(cr.near + i);
        const Chroma c0 = chroma_terms(across_avx2<kUpV>(cb3, cb.left + i, kLeftBias),
                                       across_avx2<kUpV>(cr3, cr.left + i, kLeftBias));
        const Chroma c1 = chroma_terms(across_avx2<kUpV>(cb3, cb.right + i, kRightBias),
                                       across_avx2<kUpV>(cr3, cr.right + i, kRightBias));
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}

// Chroma as fine as luma: straight from the planes.
FL_AVX2 inline void planes_to_rgb_avx2(const uint8_t* const (&y)[2], const uint8_t* const (&cb)[2],
                                       const uint8_t* const (&cr)[2], int rows,
                                       int16_t* const (&rgb)[3]) {
    const __m256i centre = _mm256_set1_epi16(128);
    for (int i = 0; i < rows; i += kRowBlock) {
        const __m256i y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const Chroma c0 = chroma_terms(_mm256_sub_epi16(load_samples(cb[0] + i), centre),
                                       _mm256_sub_epi16(load_samples(cr[0] + i), centre));
        const Chroma c1 = chroma_terms(_mm256_sub_epi16(load_samples(cb[1] + i), centre),
                                       _mm256_sub_epi16(load_samples(cr[1] + i), centre));
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}

// upsample_down<fancy>: a row above and a row below for each chroma row, interleaved.
FL_AVX2 inline void upsample_down_avx2(const uint8_t* c, int rows, int16_t* out) {
    for (int i = 0; i < rows / 2; i += kRowBlock / 2) {
        const __m128i near = load_eight(c + i), twice = _mm_add_epi16(near, near);
        const __m128i near3 = _mm_add_epi16(near, twice);
        const __m128i up = _mm_add_epi16(near3, load_eight(c + i - 1));
        const __m128i down = _mm_add_epi16(near3, load_eight(c + i + 1));
        __m128i* to = reinterpret_cast<__m128i*>(out + 2 * i);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(up, down));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(up, down));
    }
}

#endif

}  // namespace colour_detail

// Yields column pairs left to right. Pair p holds columns 2p and 2p + 1; rows are those from
// `first_row` (even), `rows` of them (a multiple of kRowBlock).
class ColumnPairs {
  public:
    bool open(const SamplePlanes& planes, int first_row, int rows, bool avx2) {
        planes_ = planes;
        first_row_ = first_row;
        rows_ = rows;
        avx2_ = avx2;
        loaded_ = -2;
        if (planes.num_components == 1) return true;
        int16_t* const room = room_.reserve(size_t(rows) * 2 * (3 + 2));
        if (!room) return false;
        for (int c = 0; c < 2; ++c) {
            for (int i = 0; i < 3; ++i) columns_[c][i] = room + size_t(5 * c + i) * rows;
            for (int i = 0; i < 2; ++i) ready_[c][i] = room + size_t(5 * c + 3 + i) * rows;
        }
        return true;
    }

    // Writes pair `pair` as [row][2] into rgb[0..2] (grey: into rgb[0] alone).
    void produce(int pair, int16_t* const (&rgb)[3]) {
        const uint8_t* const y[2] = {luma(2 * pair), luma(2 * pair + 1)};
        if (planes_.num_components == 1)
            grey(y, rgb[0]);
        else if (planes_.up_h)
            wide_chroma(pair, y, rgb);
        else
            narrow_chroma(pair, y, rgb);
    }

  private:
    const uint8_t* luma(int column) const {
        return planes_.samples[0] + first_row_ + column * planes_.stride[0];
    }
    const uint8_t* chroma(int c, int column) const {
        const int row = planes_.up_v ? first_row_ / 2 : first_row_;
        return planes_.samples[1 + c] + row + column * planes_.stride[1 + c];
    }

    void grey(const uint8_t* const (&y)[2], int16_t* out) {
#if FL_X86
        if (avx2_) return colour_detail::pair_to_grey_avx2(y, rows_, out);
#endif
        for (int i = 0; i < rows_; ++i) {
            out[2 * i] = y[0][i];
            out[2 * i + 1] = y[1][i];
        }
    }

    // Chroma as wide as luma.
    void narrow_chroma(int pair, const uint8_t* const (&y)[2], int16_t* const (&rgb)[3]) {
#if FL_X86
        if (avx2_ && !planes_.up_v) {
            const uint8_t* const cb[2] = {chroma(0, 2 * pair), chroma(0, 2 * pair + 1)};
            const uint8_t* const cr[2] = {chroma(1, 2 * pair), chroma(1, 2 * pair + 1)};
            return colour_detail::planes_to_rgb_avx2(y, cb, cr, rows_, rgb);
        }
#endif
        for (int c = 0; c < 2; ++c)
            for (int i = 0; i < 2; ++i) {
                down(c, 2 * pair + i, columns_[c][0]);
                colour_detail::finish_down(columns_[c][0], planes_.up_v, rows_, ready_[c][i]);
            }
        ready_to_rgb(y, rgb);
    }

    // Chroma column `pair` lies between luma columns 2 pair and 2 pair + 1: each is 3/4 of it and
    // 1/4 of the neighbour on its side; at the picture's edge the column is its own neighbour.
    void wide_chroma(int pair, const uint8_t* const (&y)[2], int16_t* const (&rgb)[3]) {
        const int last = planes_.chroma_columns - 1;
        const int column = pair < last ? pair : last;
        load(column, last);
        const int left = planes_.fancy && column > 0 ? column + 2 : column;
        const int right = planes_.fancy && column < last ? column + 1 : column;
        colour_detail::Neighbours n[2];
        for (int c = 0; c < 2; ++c)
            n[c] = {columns_[c][left % 3], columns_[c][column % 3], columns_[c][right % 3]};
        const bool up_v = planes_.up_v;
#if FL_X86
        if (avx2_ && up_v)
            return colour_detail::upsampled_to_rgb_avx2<true>(y, n[0], n[1], rows_, rgb);
        if (avx2_) return colour_detail::upsampled_to_rgb_avx2<false>(y, n[0], n[1], rows_, rgb);
#endif
        for (int c = 0; c < 2; ++c) {
            const colour_detail::Neighbours& from = n[c];
            colour_detail::upsample_across(from.near, from.left, up_v, up_v ? 8 : 1, rows_,
                                           ready_[c][0]);
            colour_detail::upsample_across(from.near, from.right, up_v, up_v ? 7 : 2, rows_,
                                           ready_[c][1]);
        }
        ready_to_rgb(y, rgb);
    }

    void ready_to_rgb(const uint8_t* const (&y)[2], int16_t* const (&rgb)[3]) {
        const int16_t* const cb[2] = {ready_[0][0], ready_[0][1]};
        const int16_t* const cr[2] = {ready_[1][0], ready_[1][1]};
#if FL_X86
        if (avx2_) return colour_detail::pair_to_rgb_avx2(y, cb, cr, rows_, rgb);
#endif
        for (int i = 0; i < 2; ++i) {
            int16_t* const shifted[3] = {rgb[0] + i, rgb[1] + i, rgb[2] + i};
            colour_detail::to_rgb_portable(y[i], cb[i], cr[i], rows_, shifted);
        }
    }

    void down(int c, int column, int16_t* out) {
#if FL_X86
        if (avx2_ && planes_.up_v && planes_.fancy)
            return colour_detail::upsample_down_avx2(chroma(c, column), rows_, out);
#endif
        colour_detail::upsample_down(chroma(c, column), planes_.up_v, planes_.fancy, rows_, out);
    }

    // Makes columns_ hold `column` and its neighbours.
    void load(int column, int last) {
        int from = column > 0 ? column - 1 : 0;
        if (loaded_ >= from && loaded_ <= column + 1) from = loaded_ + 1;
        for (int next = from; next <= column + 1 && next <= last; ++next) {
            for (int c = 0; c < 2; ++c) down(c, next, columns_[c][next % 3]);
            loaded_ = next;
        }
    }

    SamplePlanes planes_;
    int first_row_, rows_;
    bool avx2_;
    int loaded_;  // the last chroma column in columns_
    Array<int16_t> room_;
    int16_t* columns_[2][3];  // Cb, Cr: chroma columns at luma height, by column modulo 3
    int16_t* ready_[2][2];    // Cb, Cr: for the left and the right column of the pair, less 128
};

}  // namespace fl
