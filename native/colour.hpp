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

#include "scratch.hpp"
#include "simd.hpp"

namespace fl {

// Decoded samples around a box. Positions are relative to the first decoded sample.
struct Planes {
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

FL_AVX2 inline Chroma chroma_terms(const int16_t* cb_at, const int16_t* cr_at) {
    const __m256i cb = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(cb_at));
    const __m256i cr = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(cr_at));
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

// Sixteen rows of two columns -> pairs. Each half of a register keeps its rows, so memory holds
// rows 0-3, 8-11, 4-7, 12-15; the pack that ends the horizontal resize undoes it.
FL_AVX2 inline void store_pairs(__m256i left, __m256i right, int16_t* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_unpacklo_epi16(left, right));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16), _mm256_unpackhi_epi16(left, right));
}

FL_AVX2 inline __m256i clamp_samples(__m256i value) {
    return _mm256_min_epi16(_mm256_max_epi16(value, _mm256_setzero_si256()),
                            _mm256_set1_epi16(255));
}

FL_AVX2 inline void store_sums(__m256i y0, __m256i t0, __m256i y1, __m256i t1, int16_t* out) {
    store_pairs(clamp_samples(_mm256_add_epi16(y0, t0)), clamp_samples(_mm256_add_epi16(y1, t1)),
                out);
}

FL_AVX2 inline void pair_to_rgb_avx2(const uint8_t* const (&y)[2], const int16_t* const (&cb)[2],
                                     const int16_t* const (&cr)[2], int rows,
                                     int16_t* const (&rgb)[3]) {
    for (int i = 0; i < rows; i += kRowBlock) {
        const __m256i y0 = load_samples(y[0] + i), y1 = load_samples(y[1] + i);
        const Chroma c0 = chroma_terms(cb[0] + i, cr[0] + i),
                     c1 = chroma_terms(cb[1] + i, cr[1] + i);
        store_sums(y0, c0.red, y1, c1.red, rgb[0] + 2 * i);
        store_sums(y0, c0.green, y1, c1.green, rgb[1] + 2 * i);
        store_sums(y0, c0.blue, y1, c1.blue, rgb[2] + 2 * i);
    }
}

FL_AVX2 inline void pair_to_grey_avx2(const uint8_t* const (&y)[2], int rows, int16_t* out) {
    for (int i = 0; i < rows; i += kRowBlock)
        store_pairs(load_samples(y[0] + i), load_samples(y[1] + i), out + 2 * i);
}

FL_AVX2 inline void upsample_down_avx2(const uint8_t* c, bool up_v, bool fancy, int rows,
                                       int16_t* out) {
    upsample_down(c, up_v, fancy, rows, out);
}
FL_AVX2 inline void upsample_across_avx2(const int16_t* near, const int16_t* far, bool up_v,
                                         int bias, int rows, int16_t* out) {
    if (up_v)
        upsample_across(near, far, true, bias, rows, out);
    else
        upsample_across(near, far, false, bias, rows, out);
}
FL_AVX2 inline void finish_down_avx2(const int16_t* column, bool up_v, int rows, int16_t* out) {
    finish_down(column, up_v, rows, out);
}

#endif

}  // namespace colour_detail

// Yields column pairs left to right. Pair p holds columns 2p and 2p + 1; rows are those from
// `first_row` (even), `rows` of them (a multiple of kRowBlock).
class ColumnPairs {
  public:
    bool open(const Planes& planes, int first_row, int rows, bool avx2) {
        planes_ = planes;
        first_row_ = first_row;
        rows_ = rows;
        avx2_ = avx2;
        loaded_ = -2;
        if (planes.num_components == 1) return true;
        int16_t* room = room_.reserve(size_t(rows) * 2 * (3 + 2));
        if (room == nullptr) return false;
        for (int c = 0; c < 2; ++c) {
            for (int i = 0; i < 3; ++i) columns_[c][i] = room + size_t(5 * c + i) * rows;
            for (int i = 0; i < 2; ++i) ready_[c][i] = room + size_t(5 * c + 3 + i) * rows;
        }
        return true;
    }

    // Write pair `pair` as [row][2] into rgb[0..2] (grey: into rgb[0] alone).
    void produce(int pair, int16_t* const (&rgb)[3]) {
        const uint8_t* first = planes_.samples[0] + first_row_ + 2 * pair * planes_.stride[0];
        const uint8_t* const y[2] = {first, first + planes_.stride[0]};
        if (planes_.num_components == 1) return produce_grey(y, rgb[0]);
        if (planes_.up_h)
            upsample(pair);
        else
            for (int c = 0; c < 2; ++c)
                for (int i = 0; i < 2; ++i) {
                    down(c, 2 * pair + i, columns_[c][0]);
                    finish(columns_[c][0], ready_[c][i]);
                }
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

  private:
    void produce_grey(const uint8_t* const (&y)[2], int16_t* out) {
#if FL_X86
        if (avx2_) return colour_detail::pair_to_grey_avx2(y, rows_, out);
#endif
        for (int i = 0; i < rows_; ++i) {
            out[2 * i] = y[0][i];
            out[2 * i + 1] = y[1][i];
        }
    }

    void down(int c, int column, int16_t* out) {
        const int row = planes_.up_v ? first_row_ / 2 : first_row_;
        const uint8_t* at = planes_.samples[1 + c] + row + column * planes_.stride[1 + c];
#if FL_X86
        if (avx2_)
            return colour_detail::upsample_down_avx2(at, planes_.up_v, planes_.fancy, rows_, out);
#endif
        colour_detail::upsample_down(at, planes_.up_v, planes_.fancy, rows_, out);
    }

    void finish(const int16_t* column, int16_t* out) {
#if FL_X86
        if (avx2_) return colour_detail::finish_down_avx2(column, planes_.up_v, rows_, out);
#endif
        colour_detail::finish_down(column, planes_.up_v, rows_, out);
    }

    void across(const int16_t* near, const int16_t* far, int bias, int16_t* out) {
#if FL_X86
        if (avx2_)
            return colour_detail::upsample_across_avx2(near, far, planes_.up_v, bias, rows_, out);
#endif
        colour_detail::upsample_across(near, far, planes_.up_v, bias, rows_, out);
    }

    // Chroma column `pair` lies between luma columns 2 pair and 2 pair + 1: each is 3/4 of it and
    // 1/4 of the neighbour on its side; at the picture's edge the column is its own neighbour.
    void upsample(int pair) {
        const int last = planes_.chroma_columns - 1;
        const int column = pair < last ? pair : last;
        load(column, last);
        const int bias[2] = {planes_.up_v ? 8 : 1, planes_.up_v ? 7 : 2};
        for (int c = 0; c < 2; ++c) {
            const int16_t* near = columns_[c][column % 3];
            const int16_t* left = columns_[c][(column + 2) % 3];
            const int16_t* right = columns_[c][(column + 1) % 3];
            across(near, planes_.fancy && column > 0 ? left : near, bias[0], ready_[c][0]);
            across(near, planes_.fancy && column < last ? right : near, bias[1], ready_[c][1]);
        }
    }

    // Make columns_ hold `column` and its neighbours.
    void load(int column, int last) {
        int from = column > 0 ? column - 1 : 0;
        if (loaded_ >= from && loaded_ <= column + 1) from = loaded_ + 1;
        for (int next = from; next <= column + 1 && next <= last; ++next) {
            for (int c = 0; c < 2; ++c) down(c, next, columns_[c][next % 3]);
            loaded_ = next;
        }
    }

    Planes planes_;
    int first_row_, rows_;
    bool avx2_;
    int loaded_;  // the last chroma column in columns_
    Buffer<int16_t> room_;
    int16_t* columns_[2][3];  // Cb, Cr: chroma columns at luma height, by column modulo 3
    int16_t* ready_[2][2];    // Cb, Cr: for the left and the right column of the pair, less 128
};

}  // namespace fl
