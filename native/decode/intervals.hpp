// The restart intervals of a scan that cover a box, unstuffed; all others are stepped over.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/array.hpp"
#include "core/bits.hpp"
#include "core/header.hpp"

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
        used_ = 0;
        if (!bytes_.reserve(bytes + most * kBitPadding) || !intervals_.reserve(most))
            return kOutOfMemory;
        if (restart_interval != 0) return split(data, end, restart_interval, box);
        const int needed = box.row_end * box.per_row;
        append(data, end, 0, needed, needed == box.total);
        return kOk;
    }

    int count() const { return count_; }
    const Interval& operator[](int i) const { return intervals_[i]; }
    BitReader reader(int i) {
        const Interval& interval = intervals_[i];
        return BitReader(bytes_.data() + interval.offset, interval.size);
    }
    size_t bytes() const { return bytes_.bytes() + intervals_.bytes(); }
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
        intervals_[count_++] = {used_, size, first, length, checked};
        used_ += size + kBitPadding;
        return data;
    }

    Array<uint8_t> bytes_;
    Array<Interval> intervals_;
    int count_ = 0;
    size_t used_ = 0;
};

}  // namespace fl
