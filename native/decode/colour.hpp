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
#include "core/vector.hpp"

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

constexpr int kRowBlock =
    32;  // rows that the longest vector holds; arrays are padded to multiples of it

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

namespace avx2 {
using namespace fl::avx2;
constexpr int kRows = 16;
#define FL_VECTORS FL_AVX2
#include "decode/colour_vectors.hpp"
#undef FL_VECTORS
}  // namespace avx2

namespace avx512 {
using namespace fl::avx512;
constexpr int kRows = 32;
#define FL_VECTORS FL_AVX512
#include "decode/colour_vectors.hpp"
#undef FL_VECTORS
}  // namespace avx512

FL_AVX2 inline __m128i load_eight(const uint8_t* at) {
    return _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)));
}

// upsample_down<fancy>: a row above and a row below for each chroma row, interleaved.
FL_AVX2 inline void upsample_down_avx2(const uint8_t* c, int rows, int16_t* out) {
    for (int i = 0; i < rows / 2; i += 8) {
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
    bool open(const SamplePlanes& planes, int first_row, int rows, Simd simd) {
        planes_ = planes;
        first_row_ = first_row;
        rows_ = rows;
        simd_ = simd;
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
        if (simd_ == kAvx512) return colour_detail::avx512::pair_to_grey(y, rows_, out);
        if (simd_ == kAvx2) return colour_detail::avx2::pair_to_grey(y, rows_, out);
#endif
        for (int i = 0; i < rows_; ++i) {
            out[2 * i] = y[0][i];
            out[2 * i + 1] = y[1][i];
        }
    }

    // Chroma as wide as luma.
    void narrow_chroma(int pair, const uint8_t* const (&y)[2], int16_t* const (&rgb)[3]) {
#if FL_X86
        if (simd_ != kPortable && !planes_.up_v) {
            const uint8_t* const cb[2] = {chroma(0, 2 * pair), chroma(0, 2 * pair + 1)};
            const uint8_t* const cr[2] = {chroma(1, 2 * pair), chroma(1, 2 * pair + 1)};
            return simd_ == kAvx512 ? colour_detail::avx512::planes_to_rgb(y, cb, cr, rows_, rgb)
                                    : colour_detail::avx2::planes_to_rgb(y, cb, cr, rows_, rgb);
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
        if (simd_ == kAvx512)
            return up_v ? colour_detail::avx512::upsampled_to_rgb<true>(y, n[0], n[1], rows_, rgb)
                        : colour_detail::avx512::upsampled_to_rgb<false>(y, n[0], n[1], rows_, rgb);
        if (simd_ == kAvx2)
            return up_v ? colour_detail::avx2::upsampled_to_rgb<true>(y, n[0], n[1], rows_, rgb)
                        : colour_detail::avx2::upsampled_to_rgb<false>(y, n[0], n[1], rows_, rgb);
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
        if (simd_ == kAvx512) return colour_detail::avx512::pair_to_rgb(y, cb, cr, rows_, rgb);
        if (simd_ == kAvx2) return colour_detail::avx2::pair_to_rgb(y, cb, cr, rows_, rgb);
#endif
        for (int i = 0; i < 2; ++i) {
            int16_t* const shifted[3] = {rgb[0] + i, rgb[1] + i, rgb[2] + i};
            colour_detail::to_rgb_portable(y[i], cb[i], cr[i], rows_, shifted);
        }
    }

    void down(int c, int column, int16_t* out) {
#if FL_X86
        if (simd_ != kPortable && planes_.up_v && planes_.fancy)
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
    Simd simd_;
    int loaded_;  // the last chroma column in columns_
    Array<int16_t> room_;
    int16_t* columns_[2][3];  // Cb, Cr: chroma columns at luma height, by column modulo 3
    int16_t* ready_[2][2];    // Cb, Cr: for the left and the right column of the pair, less 128
};

}  // namespace fl
