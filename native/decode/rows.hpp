// Column pairs -> rows of RGB: a whole picture at its own size.
//
// Sixteen columns at a time, so that each row receives 48 bytes at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/array.hpp"
#include "core/simd.hpp"
#include "decode/colour.hpp"
#include "decode/idct.hpp"
#include "decode/resize.hpp"

namespace fl {

namespace rows_detail {

constexpr int kStrip = 16;  // columns, and rows at a time

// Eight column pairs of each channel, `pair_stride` apart.
struct Strip {
    const int16_t* rgb[3];
    ptrdiff_t pair_stride;
};

inline void write_portable(const Strip& strip, int rows, int columns, uint8_t* out,
                           ptrdiff_t stride) {
    for (int y = 0; y < rows; ++y)
        for (int x = 0; x < columns; ++x)
            for (int c = 0; c < 3; ++c)
                out[y * stride + 3 * x + c] =
                    static_cast<uint8_t>(strip.rgb[c][x / 2 * strip.pair_stride + 2 * y + x % 2]);
}

#if FL_X86

// `vector_rows` of each column pair were stored at a time: see store_pairs.
FL_AVX2 inline void write_avx2(const Strip& strip, int vector_rows, int rows, int columns,
                               uint8_t* out, ptrdiff_t stride) {
    for (int y = 0; y < rows; y += kStrip) {
        __m256i rgb[3][8];  // rows y + i and y + 8 + i of sixteen columns
        for (int c = 0; c < 3; ++c) {
            const int16_t* at = strip.rgb[c] + 2 * y - y % vector_rows;
            for (int i = 0; i < 8; ++i, at += strip.pair_stride)
                rgb[c][i] =
                    _mm256_packus_epi16(fl::avx2::load(at), fl::avx2::load(at + vector_rows));
            idct_detail::transpose(rgb[c]);
        }
        for (int i = 0; i < kStrip && y + i < rows; ++i) {
            const auto row = [&](int c) FL_AVX2 {
                return i < 8 ? _mm256_castsi256_si128(rgb[c][i])
                             : _mm256_extracti128_si256(rgb[c][i - 8], 1);
            };
            uint8_t* const to = out + (y + i) * stride;
            uint8_t last[3 * kStrip];
            resize_detail::store_rgb(row(0), row(1), row(2), columns == kStrip ? to : last);
            if (columns < kStrip) std::memcpy(to, last, size_t(columns) * 3);
        }
    }
}

#endif

}  // namespace rows_detail

// Writes [height][width][3] at `out`. `columns` yields pad_rows(height) rows, `room` is lent for
// the strip. False: out of memory.
inline bool write_rows(ColumnPairs& columns, Array<int16_t>& room, int height, int width,
                       int channels, uint8_t* out, Simd simd) {
    using namespace rows_detail;
    const ptrdiff_t pair = 2 * pad_rows(height), channel = pair * kStrip / 2;
    int16_t* const at = room.reserve(size_t(channel) * channels);
    if (!at) return false;
    const Strip strip = {{at, at + (channels > 1) * channel, at + (channels > 1) * 2 * channel},
                         pair};
    for (int x = 0; x < width; x += kStrip) {
        const int count = width - x < kStrip ? width - x : kStrip;
        for (int i = 0; 2 * i < count; ++i) {
            int16_t* const rgb[3] = {at + i * pair, at + i * pair + (strip.rgb[1] - at),
                                     at + i * pair + (strip.rgb[2] - at)};
            columns.produce(x / 2 + i, rgb);
        }
        uint8_t* const to = out + 3 * ptrdiff_t{x};
#if FL_X86
        if (simd != kPortable) {
            write_avx2(strip, simd == kAvx512 ? 32 : 16, height, count, to, 3 * ptrdiff_t{width});
            continue;
        }
#endif
        write_portable(strip, height, count, to, 3 * ptrdiff_t{width});
    }
    return true;
}

}  // namespace fl
