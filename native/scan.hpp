// The entropy-coded scan: which restart intervals cover a box, and their decoding into
// coefficients.
//
// Huffman decoding is serial: each symbol must be read before the next one's place is known. Two
// restart intervals are therefore decoded side by side ("lanes"), so that the processor has two
// such chains to work on. A lane that finishes an interval (or fills its block buffer) hands its
// blocks over and takes the next interval.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "bits.hpp"
#include "huffman.hpp"
#include "scratch.hpp"
#include "simd.hpp"

namespace fl {

// MCUs [row_begin, row_end) x [column_begin, column_end) of a picture `per_row` MCUs wide.
struct McuBox {
    int row_begin, row_end, column_begin, column_end;
    int per_row, total;
};

// First MCU at or after `mcu` that lies in the box; `total` if none does.
inline int next_in_box(const McuBox& box, int mcu) {
    int row = mcu / box.per_row, column = mcu % box.per_row;
    if (row < box.row_begin) {
        row = box.row_begin;
        column = box.column_begin;
    } else if (column < box.column_begin) {
        column = box.column_begin;
    } else if (column >= box.column_end) {
        ++row;
        column = box.column_begin;
    }
    return row < box.row_end ? row * box.per_row + column : box.total;
}

struct Interval {
    size_t offset, size;  // in the unstuffed bytes
    int first_mcu, num_mcus;
    bool checked;  // decoded to its end, where it must be complete
};

// The unstuffed intervals that the box needs, in order.
class CoveringIntervals {
  public:
    // `data` is the scan's entropy-coded data and whatever follows them.
    Status find(const uint8_t* data, const uint8_t* end, int restart_interval, const McuBox& box) {
        const size_t bytes = end - data;
        // Each interval but one has a marker of two bytes in the file, whatever the header says.
        size_t most = restart_interval ? size_t(box.total) / restart_interval + 1 : 1;
        if (most > bytes / 2 + 1) most = bytes / 2 + 1;
        count_ = 0;
        if (!bytes_.reserve(bytes + most * kBitPadding) || !intervals_.reserve(most))
            return kOutOfMemory;
        used_ = 0;
        if (restart_interval != 0) return split(data, end, restart_interval, box);
        const int needed = box.row_end * box.per_row;
        append(data, next_marker(data, end), 0, needed, needed == box.total);
        return kOk;
    }

    int count() const { return count_; }
    const Interval& operator[](int i) { return intervals_.data()[i]; }
    BitReader reader(int i) {
        const Interval& interval = intervals_.data()[i];
        return BitReader(bytes_.data() + interval.offset, interval.size);
    }
    size_t held_bytes() const { return bytes_.bytes() + intervals_.bytes(); }
    void release() {
        bytes_.release();
        intervals_.release();
    }

  private:
    Status split(const uint8_t* data, const uint8_t* end, int restart_interval, const McuBox& box) {
        const int last_needed = (box.row_end - 1) * box.per_row + box.column_end - 1;
        for (int first = 0, number = 0;; ++number) {
            const int left = box.total - first;
            const int length = restart_interval < left ? restart_interval : left;
            const uint8_t* stop = next_marker(data, end);
            if (next_in_box(box, first) < first + length) append(data, stop, first, length, true);
            first += length;
            if (first > last_needed) return kOk;
            if (stop == end || stop[1] == kEOI) return kTruncatedScan;
            if (stop[1] != kRST0 + number % 8) return kBadRestart;
            data = stop + 2;
        }
    }

    void append(const uint8_t* begin, const uint8_t* end, int first, int length, bool checked) {
        const size_t size = unstuff(begin, end, bytes_.data() + used_);
        intervals_.data()[count_++] = {used_, size, first, length, checked};
        used_ += size + kBitPadding;
    }

    Buffer<uint8_t> bytes_;
    Buffer<Interval> intervals_;
    int count_ = 0;
    size_t used_ = 0;
};

// The blocks of an MCU, as a ring.
struct Step {
    const SymbolTable* ac;       // of this block
    const SymbolTable* next_dc;  // of the next one
    const Step* next;
};

// One interval being decoded, as far as the inner loop is concerned.
struct Lane {
    BitReader bits;
    int16_t* block;            // where coefficients go
    const int16_t* stop;       // hand over when `block` gets here
    const SymbolTable* table;  // for the next symbol
    const Step* step;
    size_t k;      // coefficients of the block that were read, in [0, 64)
    unsigned bad;  // gathers kOverrun
};

namespace scan_detail {

// By coefficients read once a symbol was taken: where its value goes, in natural order.
//   1..64     the value's place
//   65..127   a run beyond the block's end: kOverrun, and a place in the slack behind the buffer
//   129..191  kEndOfBlock: value 0, to the last place, which then is still 0
constexpr unsigned kOverrun = 0x80;

struct Places {
    uint8_t natural[192];
    constexpr Places() : natural() {
        for (int k = 0; k < 192; ++k)
            natural[k] = k >= 1 && k <= 64 ? kZigzag[k - 1]
                                           : static_cast<uint8_t>(k < 128 ? kOverrun | 63 : 63);
    }
};
inline constexpr Places kPlaces{};

// Decode one symbol. There is no branch on the end of a block, which no predictor can foresee.
FL_INLINE bool symbol(Lane& lane) {
    uint32_t entry = lane.table->look[lane.bits.window >> (64 - kLookBits)];
    if (FL_UNLIKELY((entry & 0xFF) == 0)) {
        lane.bits.refill();
        entry = lane.table->find(lane.bits.window);
        if (entry == 0) return false;
        lane.bits.window <<= entry & 63;
        lane.bits.count -= entry & 63;
        lane.bits.refill();
    } else {
        lane.bits.window <<= entry & 63;
        lane.bits.count -= entry & 63;
    }
    const size_t k = lane.k + (entry >> 8 & 0xFF);
    const unsigned place = kPlaces.natural[k];
    lane.bad |= place;
    lane.block[place] = static_cast<int16_t>(static_cast<int32_t>(entry) >> 16);
    const bool ended = k >= 64;
    const SymbolTable *ac = lane.step->ac, *next_dc = lane.step->next_dc;
    const Step* next = lane.step->next;
    lane.table = ended ? next_dc : ac;
    lane.step = ended ? next : lane.step;
    lane.block = ended ? lane.block + 64 : lane.block;
    lane.k = ended ? 0 : k;
    return true;
}

// A window holds 56 bits after a refill: four symbols of at most kLookBits bits, or a longer one,
// which refills for itself.
constexpr int kSymbolsPerRefill = 4;

// Run until a lane reaches its stop. False: a code that does not exist.
FL_INLINE bool run_one(Lane& lane) {
    Lane a = lane;
    bool good = true;
    for (;;) {
        a.bits.refill();
        for (int i = 0; i < kSymbolsPerRefill; ++i) {
            if (FL_UNLIKELY(!symbol(a))) {
                good = false;
                goto done;
            }
            if (a.block == a.stop) goto done;
        }
    }
done:
    lane = a;
    return good;
}

FL_INLINE bool run_two(Lane& first, Lane& second) {
    Lane a = first, b = second;
    bool good = true;
    for (;;) {
        a.bits.refill();
        b.bits.refill();
        for (int i = 0; i < kSymbolsPerRefill; ++i) {
            if (FL_UNLIKELY(!symbol(a) || !symbol(b))) {
                good = false;
                goto done;
            }
            if (a.block == a.stop || b.block == b.stop) goto done;
        }
    }
done:
    first = a;
    second = b;
    return good;
}

inline bool run_one_portable(Lane& lane) { return run_one(lane); }
inline bool run_two_portable(Lane& a, Lane& b) { return run_two(a, b); }
FL_AVX2 inline bool run_one_avx2(Lane& lane) { return run_one(lane); }  // for BMI2's shifts
FL_AVX2 inline bool run_two_avx2(Lane& a, Lane& b) { return run_two(a, b); }

}  // namespace scan_detail

}  // namespace fl
