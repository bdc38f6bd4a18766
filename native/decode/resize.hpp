// One antialiased bilinear resize (Pillow's BILINEAR, torchvision's antialias=True): a triangle
// filter as wide as the reduction, cut off at the crop's edges and normalised.
//
// Horizontally first, straight from the column pairs of colour.hpp, then vertically:
//
//     column pairs [x/2][y][2]  --multiply-add-->  8 output columns [8][y]
//         --transpose-->  row pairs [y/2][column][2]  --multiply-add-->  output rows
//
// Both passes multiply two neighbouring samples with two weights in one instruction and run along
// memory. Weights are 14-bit fractions, the intermediate keeps 7 fractional bits, both rounded
// once.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/array.hpp"
#include "core/simd.hpp"
#include "core/vector.hpp"
#include "decode/colour.hpp"

namespace fl {

constexpr int kWeightBits = 14, kKeptBits = 7;
constexpr int kFirstShift = kWeightBits - kKeptBits, kSecondShift = kWeightBits + kKeptBits;

// For each output position: which pairs of input samples it takes, and their weights.
struct Taps {
    struct Span {
        int first, count;  // in pairs of samples
    };
    const Span* spans;
    const int16_t* weights;  // [size][max_pairs][2]: of the even and of the odd sample of a pair
    int max_pairs;
    int size;
};

class TapsBuilder {
  public:
    struct Pixels {
        int begin, length;
    };
    struct Range {
        double begin, length;
    };

    // Output sample i of `size` covers [window.begin + i * window.length / size, ...) of the input,
    // whose pixels are unit intervals from 0. Only pixels in `box`, which holds the window, count.
    // Where a sample of the input stands for 2^halvings pixels, it has the sum of their weights:
    // one that the box cuts counts for the pixels inside.
    bool build(const Pixels& box, const Range& window, int size, int halvings, Taps& taps) {
        const double begin = window.begin, length = window.length;
        const double scale = length / size, width = scale > 1 ? scale : 1, inverse = 1 / width;
        const int low = box.begin, high = box.begin + box.length;
        const int max_pairs = (static_cast<int>(std::ceil(2 * width)) >> (halvings + 1)) + 2;
        Taps::Span* const spans = spans_.reserve(size);
        int16_t* const weights = weights_.reserve(size_t(size) * max_pairs * 2);
        double* const exact = exact_.reserve(2 * max_pairs);
        if (!spans || !weights || !exact) return false;
        for (int i = 0; i < size; ++i) {
            const double centre = begin + (i + 0.5) * scale;
            // Casts round down: all is positive but for a first tap, which `low` then replaces.
            int first = static_cast<int>(centre - width + 0.5);
            int end = static_cast<int>(centre + width + 0.5);
            first = first < low ? low : first;
            end = end > high ? high : end;
            const int first_sample = first >> halvings;
            const int end_sample = ((end - 1) >> halvings) + 1;
            std::memset(exact, 0, sizeof(double) * (end_sample - first_sample));
            double sum = 0;
            for (int x = first; x < end; ++x) {
                const double weight = 1 - std::fabs(x + 0.5 - centre) * inverse;
                if (weight <= 0) continue;
                sum += weight;
                exact[(x >> halvings) - first_sample] += weight;
            }
            spans[i] = {first_sample >> 1, ((end_sample + 1) >> 1) - (first_sample >> 1)};
            int16_t* const row = weights + size_t(i) * max_pairs * 2;
            std::memset(row, 0, size_t(max_pairs) * 4);
            quantise(exact, end_sample - first_sample, (1 << kWeightBits) / sum,
                     row + (first_sample & 1));
        }
        taps = {spans, weights, max_pairs, size};
        return true;
    }

  private:
    // Each weight is what the rounded sum of weights so far grows by, so they add up to one and a
    // flat picture stays as it is.
    static void quantise(const double* exact, int count, double unit, int16_t* out) {
        double sum = 0;
        int before = 0;
        for (int i = 0; i < count; ++i) {
            sum += exact[i];
            const int upto = static_cast<int>(sum * unit + 0.5);
            out[i] = static_cast<int16_t>(upto - before);
            before = upto;
        }
    }

    Array<Taps::Span> spans_;
    Array<int16_t> weights_;
    Array<double> exact_;
};

namespace resize_detail {

// `count` column pairs -> one output column of `rows` values.
inline void across_portable(const int16_t* const* pairs, const int16_t* weights, int count,
                            int rows, int16_t* out) {
    for (int y = 0; y < rows; ++y) {
        int32_t sum = 1 << (kFirstShift - 1);
        for (int t = 0; t < count; ++t)
            sum += pairs[t][2 * y] * weights[2 * t] + pairs[t][2 * y + 1] * weights[2 * t + 1];
        out[y] = static_cast<int16_t>(sum >> kFirstShift);
    }
}

// `count` row pairs from `at`, `stride` apart -> `columns` finished samples.
inline void down_portable(const int16_t* at, ptrdiff_t stride, const int16_t* weights, int count,
                          int columns, uint8_t* out) {
    for (int x = 0; x < columns; ++x) {
        int32_t sum = 1 << (kSecondShift - 1);
        for (int t = 0; t < count; ++t) {
            const int16_t* pair = at + t * stride + 2 * x;
            sum += pair[0] * weights[2 * t] + pair[1] * weights[2 * t + 1];
        }
        out[x] = static_cast<uint8_t>(sum >> kSecondShift);
    }
}

// Eight columns of `rows` values -> row pairs [row/2][8][2].
inline void turn_portable(const int16_t* columns, int rows, int16_t* out, ptrdiff_t stride) {
    for (int y = 0; y < rows; y += 2)
        for (int x = 0; x < 8; ++x) {
            out[y / 2 * stride + 2 * x] = columns[x * rows + y];
            out[y / 2 * stride + 2 * x + 1] = columns[x * rows + y + 1];
        }
}

#if FL_X86

inline int32_t both_weights(const int16_t* pair) {
    int32_t both;
    std::memcpy(&both, pair, sizeof both);
    return both;
}

// Calls run(count) with `count` as a constant from 1 to 4, for which the compiler unrolls the loop
// over taps; with 0 where there are more.
template <typename Run>
inline void unrolled(int count, Run run) {
    switch (count) {
        case 1:
            return run(std::integral_constant<int, 1>());
        case 2:
            return run(std::integral_constant<int, 2>());
        case 3:
            return run(std::integral_constant<int, 3>());
        case 4:
            return run(std::integral_constant<int, 4>());
        default:
            return run(std::integral_constant<int, 0>());
    }
}

namespace avx2 {
using namespace fl::avx2;
constexpr int kRows = 16;
#define FL_VECTORS FL_AVX2
#include "decode/resize_vectors.hpp"
#undef FL_VECTORS
}  // namespace avx2

namespace avx512 {
using namespace fl::avx512;
constexpr int kRows = 32;
#define FL_VECTORS FL_AVX512
#include "decode/resize_vectors.hpp"
#undef FL_VECTORS
}  // namespace avx512

// Sixteen columns from row pairs.
template <int kCount>  // 0: any count
FL_AVX2 inline __m128i down_avx2(const int16_t* at, ptrdiff_t stride, const int16_t* weights,
                                 int any_count) {
    const int count = kCount ? kCount : any_count;
    __m256i low = _mm256_set1_epi32(1 << (kSecondShift - 1)), high = low;
    for (int t = 0; t < count; ++t, at += stride) {
        const __m256i weight = _mm256_set1_epi32(both_weights(weights + 2 * t));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(fl::avx2::load(at), weight));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(fl::avx2::load(at + 16), weight));
    }
    const __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(low, kSecondShift),
                                             _mm256_srai_epi32(high, kSecondShift));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
    return _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

FL_AVX2 inline void turn_avx2(const int16_t* columns, int rows, int16_t* out, ptrdiff_t stride) {
    for (int y = 0; y < rows; y += 16) {
        __m256i r[8], a[8];
        for (int i = 0; i < 8; ++i) r[i] = fl::avx2::load(columns + i * rows + y);
        for (int i = 0; i < 4; ++i) {
            a[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            a[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            r[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
            r[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
            r[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
            r[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
        }
        int16_t* to = out + y / 2 * stride;
        for (int i = 0; i < 4; ++i) {
            store(to + i * stride, _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
            store(to + (i + 4) * stride, _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
        }
    }
}

// Sixteen samples each of red, green and blue -> 48 interleaved bytes.
FL_AVX2 inline void store_rgb(__m128i red, __m128i green, __m128i blue, uint8_t* out) {
    const __m128i masks[3][3] = {
        {_mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5),
         _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1),
         _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1)},
        {_mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1),
         _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10),
         _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1)},
        {_mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1),
         _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1),
         _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15)},
    };
    for (int i = 0; i < 3; ++i) {
        const __m128i bytes = _mm_or_si128(
            _mm_or_si128(_mm_shuffle_epi8(red, masks[i][0]), _mm_shuffle_epi8(green, masks[i][1])),
            _mm_shuffle_epi8(blue, masks[i][2]));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out) + i, bytes);
    }
}

#endif

}  // namespace resize_detail

class Resizer {
  public:
    // Resizes what `columns` yields (`rows` of them, a multiple of kRowBlock) to [size][size][3] at
    // `out`, mirrored if `flip`. Grey, with one channel, is repeated. False: out of memory.
    bool run(ColumnPairs& columns, const Taps& across, const Taps& down, int rows, int channels,
             bool flip, uint8_t* out, Simd simd) {
        rows_ = rows;
        channels_ = channels;
        simd_ = simd;
        if (!reserve(across)) return false;
        shrink_across(columns, across, flip);
        shrink_down(down, out);
        return true;
    }

    size_t bytes() const { return turned_.bytes() + ring_.bytes() + group_.bytes(); }
    void release() {
        turned_.release();
        ring_.release();
        group_.release();
    }

  private:
    static constexpr int kColumns = 16;  // finished at a time
    static constexpr int kMargin = 8;    // columns left of the first, for a mirrored last group

    bool reserve(const Taps& across) {
        slots_ = 1;
        while (slots_ < across.max_pairs) slots_ *= 2;
        stride_ = (kMargin + across.size + 2 * kColumns) / 8 * 8 * 2;
        plane_ = rows_ / 2 * stride_;
        return turned_.reserve(size_t(plane_) * channels_) &&
               group_.reserve(size_t(8) * channels_ * rows_) &&
               ring_.reserve(size_t(slots_) * channels_ * 2 * rows_) && pairs_.reserve(slots_);
    }

    int16_t* slot(int channel, int pair) {
        return ring_.data() + (size_t(channel) * slots_ + (pair & (slots_ - 1))) * 2 * rows_;
    }

    void shrink_across(ColumnPairs& columns, const Taps& taps, bool flip) {
        int next = taps.spans[0].first;
        for (int group = 0; group < taps.size; group += 8) {
            const int end = group + 8 < taps.size ? group + 8 : taps.size;
            for (int x = group; x < end; ++x) {
                const Taps::Span span = taps.spans[x];
                for (; next < span.first + span.count; ++next) {
                    int16_t* const rgb[3] = {slot(0, next), slot(channels_ > 1 ? 1 : 0, next),
                                             slot(channels_ > 1 ? 2 : 0, next)};
                    columns.produce(next, rgb);
                }
                const int place = flip ? 7 - (x - group) : x - group;
                for (int c = 0; c < channels_; ++c) column(c, span, taps, x, place);
            }
            const int left = kMargin + (flip ? taps.size - group - 8 : group);
            for (int c = 0; c < channels_; ++c)
                turn(group_.data() + size_t(c) * 8 * rows_, turned_.data() + c * plane_ + 2 * left);
        }
    }

    void column(int channel, Taps::Span span, const Taps& taps, int x, int place) {
        const int16_t** const pairs = pairs_.data();
        for (int t = 0; t < span.count; ++t) pairs[t] = slot(channel, span.first + t);
        int16_t* const to = group_.data() + (size_t(channel) * 8 + place) * rows_;
        const int16_t* weights = taps.weights + size_t(x) * taps.max_pairs * 2;
#if FL_X86
        if (simd_ != kPortable)
            return resize_detail::unrolled(span.count, [&](auto count) {
                if (simd_ == kAvx512)
                    resize_detail::avx512::across<count()>(pairs, weights, span.count, rows_, to);
                else
                    resize_detail::avx2::across<count()>(pairs, weights, span.count, rows_, to);
            });
#endif
        resize_detail::across_portable(pairs, weights, span.count, rows_, to);
    }

    void turn(const int16_t* from, int16_t* to) {
#if FL_X86
        if (simd_ != kPortable) return resize_detail::turn_avx2(from, rows_, to, stride_);
#endif
        resize_detail::turn_portable(from, rows_, to, stride_);
    }

    void shrink_down(const Taps& taps, uint8_t* out) {
        for (int y = 0; y < taps.size; ++y, out += size_t(taps.size) * 3) {
            const int16_t* weights = taps.weights + size_t(y) * taps.max_pairs * 2;
            const int16_t* at = turned_.data() + taps.spans[y].first * stride_ + 2 * kMargin;
#if FL_X86
            if (simd_ != kPortable) {
                const int any_count = taps.spans[y].count;
                resize_detail::unrolled(any_count, [&](auto count) {
                    row_avx2<count()>(at, weights, any_count, taps.size, out);
                });
                continue;
            }
#endif
            row_portable(at, weights, taps.spans[y].count, taps.size, out);
        }
    }

    void row_portable(const int16_t* at, const int16_t* weights, int count, int size,
                      uint8_t* out) {
        uint8_t samples[3][kColumns];
        for (int x = 0; x < size; x += kColumns) {
            const int width = size - x < kColumns ? size - x : kColumns;
            for (int c = 0; c < channels_; ++c)
                resize_detail::down_portable(at + c * plane_ + 2 * x, stride_, weights, count,
                                             width, samples[c]);
            for (int i = 0; i < width; ++i)
                for (int c = 0; c < 3; ++c)
                    out[3 * (x + i) + c] = samples[channels_ > 1 ? c : 0][i];
        }
    }

#if FL_X86
    template <int kCount>  // 0: any count
    FL_AVX2 void row_avx2(const int16_t* at, const int16_t* weights, int count, int size,
                          uint8_t* out) {
        using resize_detail::down_avx2;
        for (int x = 0; x < size; x += kColumns, at += 2 * kColumns) {
            const __m128i red = down_avx2<kCount>(at, stride_, weights, count);
            __m128i green = red, blue = red;
            if (channels_ > 1) {
                green = down_avx2<kCount>(at + plane_, stride_, weights, count);
                blue = down_avx2<kCount>(at + 2 * plane_, stride_, weights, count);
            }
            if (size - x >= kColumns) {
                resize_detail::store_rgb(red, green, blue, out + 3 * x);
            } else {
                uint8_t last[3 * kColumns];
                resize_detail::store_rgb(red, green, blue, last);
                std::memcpy(out + 3 * x, last, size_t(size - x) * 3);
            }
        }
    }
#endif

    Array<int16_t> ring_;    // [channel][slot][row][2]: column pairs
    Array<int16_t> group_;   // [channel][8][row]: finished columns
    Array<int16_t> turned_;  // [channel][row / 2][kMargin + column][2]: row pairs
    Array<const int16_t*> pairs_;
    int rows_ = 0, channels_ = 0, slots_ = 0;
    Simd simd_ = kPortable;
    ptrdiff_t stride_ = 0, plane_ = 0;  // in int16
};

}  // namespace fl
