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
#include "lookup.hpp"
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
        append(data, end, 0, needed, needed == box.total);
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
            if (next_in_box(box, first) < first + length)
                data = append(data, end, first, length, true);
            else
                data = next_marker(data, end);
            first += length;
            if (first > last_needed) return kOk;
            if (data == end || data[1] == kEOI) return kTruncatedScan;
            if (data[1] != kRST0 + number % 8) return kBadRestart;
            data += 2;
        }
    }

    // Returns the end of the interval that begins at `data`.
    const uint8_t* append(const uint8_t* data, const uint8_t* end, int first, int length,
                          bool checked) {
        const size_t size = copy_interval(data, end, bytes_.data() + used_);
        intervals_.data()[count_++] = {used_, size, first, length, checked};
        used_ += size + kBitPadding;
        return data;
    }

    Buffer<uint8_t> bytes_;
    Buffer<Interval> intervals_;
    int count_ = 0;
    size_t used_ = 0;
};

// The blocks of an MCU, as a ring.
struct Step {
    const PairTable* ac;       // of this block
    const PairTable* next_dc;  // of the next one
    const Step* next;
};

// One interval being decoded, as far as the inner loop is concerned.
struct Lane {
    BitReader bits;
    int16_t* block;          // where coefficients go
    const int16_t* stop;     // hand over when `block` gets here
    const PairTable* table;  // for the next look-up
    const Step* step;        // of this block
    const uint8_t* place;    // in kPlaces: by coefficients of the block that were read, in [0, 64)
};

namespace scan_detail {

// By coefficients read once a symbol was taken: where its value goes, in natural order.
//   1..64     the value's place
//   129..191  kEndOfBlock: value 0, to the last place, which then is still 0
//   192..255  kNotInTable: look at the code itself
//   else      a run beyond the block's end: kOverrun
constexpr unsigned kOverrun = 0x80;

struct alignas(256) Places {  // so that the low byte of a position is the number of coefficients
    uint8_t natural[256];
    constexpr Places() : natural() {
        for (int k = 0; k < 256; ++k)
            natural[k] = k >= 1 && k <= 64
                             ? kZigzag[k - 1]
                             : static_cast<uint8_t>(k > 128 && k < 192 ? 63 : kOverrun);
    }
};
inline constexpr Places kPlaces{};

FL_INLINE void refill(BitReader& bits) {
    bits.count &= 63;
    bits.refill();
}
// `entry`: its low byte holds the number of bits, in [1, 31]; what else it holds goes to the upper
// bits of the count, which nobody reads.
FL_INLINE void skip(BitReader& bits, uint32_t entry) {
    bits.window <<= entry & 63;
    bits.count = static_cast<int>(static_cast<uint32_t>(bits.count) - entry);
}

// A block begins: with its DC difference.
FL_INLINE void begin_block(Lane& lane, const PairTable* dc) {
    lane.table = dc;
    lane.place = kPlaces.natural;
}

// Go on to `last`, where a block of 64 coefficients or with an end-of-block code is at its end. No
// predictor can foresee which look-up ends a block, and a wrong guess costs both lanes dear, so
// there is no branch; compilers will not be told, hence the assembly.
FL_INLINE void go_on(Lane& lane, const uint8_t* last) {
    const PairTable* table = lane.step->ac;
#if FL_X86
    int16_t* const next_block = lane.block + 64;
    asm("testb $0xC0, %b[last]\n\t"
        "cmovnz %[next_block], %[block]\n\t"
        "cmovnz %[begin], %[last]\n\t"
        "cmovnz %[next_dc], %[table]\n\t"
        "cmovnz %[next], %[step]"
        :
        [last] "+&q"(last), [block] "+&r"(lane.block), [table] "+&r"(table), [step] "+r"(lane.step)
        : [next_block] "r"(next_block), [begin] "r"(kPlaces.natural),
          [next_dc] "m"(lane.step->next_dc), [next] "m"(lane.step->next)
        : "cc");
#else
    if (reinterpret_cast<uintptr_t>(last) & 0xC0) {
        lane.block += 64;
        last = kPlaces.natural;
        table = lane.step->next_dc;
        lane.step = lane.step->next;
    }
#endif
    lane.table = table;
    lane.place = last;
}

// One look-up.
FL_INLINE Status look_up(Lane& lane) {
    PairEntry entry = lane.table->look[lane.bits.window >> (64 - kLookBits)];
    size_t place = lane.place[entry.first()];
    const uint8_t* last = lane.place + entry.last();
    if (FL_UNLIKELY((*last & kOverrun) != 0)) {
        // One coefficient by the long way: with its additional bits it exceeds the look-up, or it
        // fills the block and what follows was no second one.
        refill(lane.bits);
        entry = lane.table->find(lane.bits.window);
        if (entry.skip == 0) return kBadCode;
        last = lane.place + entry.last();
        place = *last;
        if ((place & kOverrun) != 0) return kCoefficientOverrun;
        skip(lane.bits, entry.skip);
        refill(lane.bits);
    } else {
        skip(lane.bits, entry.skip);
    }
    lane.block[place] = static_cast<int16_t>(entry.values);
    lane.block[*last] = static_cast<int16_t>(entry.values >> 16);
    go_on(lane, last);
    return kOk;
}

// A window holds 56 bits after a refill: five look-ups, or a longer code, which refills for itself.
constexpr int kLooksPerRefill = 5;
static_assert(kLooksPerRefill * kLookBits <= 56, "a window must last for the group");

// Run until a lane reaches its stop.
FL_INLINE Status run_one(Lane& lane) {
    Lane a = lane;
    Status status = kOk;
    for (;;) {
        refill(a.bits);
        for (int i = 0; i < kLooksPerRefill; ++i) {
            if (FL_UNLIKELY((status = look_up(a)) != kOk)) goto done;
            if (FL_UNLIKELY(a.block == a.stop)) goto done;
        }
    }
done:
    a.bits.count &= 63;
    lane = a;
    return status;
}

FL_INLINE Status run_two(Lane& first, Lane& second) {
    Lane a = first, b = second;
    Status status = kOk;
    for (;;) {
        refill(a.bits);
        refill(b.bits);
        for (int i = 0; i < kLooksPerRefill; ++i) {
            if (FL_UNLIKELY((status = look_up(a)) != kOk)) goto done;
            if (FL_UNLIKELY((status = look_up(b)) != kOk)) goto done;
            if (FL_UNLIKELY(a.block == a.stop)) goto done;
            if (FL_UNLIKELY(b.block == b.stop)) goto done;
        }
    }
done:
    a.bits.count &= 63;
    b.bits.count &= 63;
    first = a;
    second = b;
    return status;
}

inline Status run_one_portable(Lane& lane) { return run_one(lane); }
inline Status run_two_portable(Lane& a, Lane& b) { return run_two(a, b); }
FL_AVX2 inline Status run_one_avx2(Lane& lane) { return run_one(lane); }  // for BMI2's shifts
FL_AVX2 inline Status run_two_avx2(Lane& a, Lane& b) { return run_two(a, b); }

}  // namespace scan_detail

}  // namespace fl
