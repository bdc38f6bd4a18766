// The intervals of a scan that cover a box, unstuffed; all others are stepped over. An interval
// begins and ends at restart markers, or at the seek points of a table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/array.hpp"
#include "core/bits.hpp"
#include "core/header.hpp"
#include "seek/skip.hpp"
#include "seek/table.hpp"

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
    // What must hold when its last MCU was decoded: nothing, as the scan goes on; its bits are used
    // up but for padding; or it has come to a seek point, and to the predictors there.
    enum End : uint8_t { kGoesOn, kComplete, kSeekPoint } end;
    uint8_t first_bit;  // in the first byte
    uint8_t bits_left;  // behind a seek point
    int16_t dc[3], end_dc[3];

    // Begins at another place within the bytes that it has.
    void enter(const SkipState& state) {
        const size_t bits = 8 * size - size_t(state.bits.bits_left());
        offset += bits / 8;
        size -= bits / 8;
        first_bit = static_cast<uint8_t>(bits % 8);
        for (int c = 0; c < 3; ++c) dc[c] = static_cast<int16_t>(state.dc[c]);
    }

    // After its last MCU: whether the decoder has come to where the interval ends.
    Status arrived(const BitReader& bits, const int16_t (&predictors)[3]) const {
        switch (end) {
            case kComplete:
                return bits.complete() ? kOk : kBadInterval;
            case kSeekPoint:
                return bits.bits_left() == bits_left &&
                               std::memcmp(predictors, end_dc, sizeof end_dc) == 0
                           ? kOk
                           : kMissedSeekPoint;
            default:
                return kOk;
        }
    }
};

// The unstuffed intervals that the box needs, in order.
class CoveringIntervals {
  public:
    // By restart markers. `data` is the scan's entropy-coded data and whatever follows them.
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

    // Of a scan without restart markers, by stepping over what lies before the box and beside its
    // upper rows. Its lower rows are one interval, which comes first, so that two lanes have as
    // many MCUs each. Where the skipper finds anything it does not take, the scan is one interval.
    //
    // Measured, CPU time of a random crop against one lane from the scan's beginning: 4:2:0 of
    // 43 kB 0.92, 4:4:4 of 117 kB 0.94; with one lane from the box on 0.97 and 0.98. With 3.4 MB,
    // or whole rows, the second lane gains nothing (1.0 to 1.04 for 0.94 to 1.0).
    Status find(const uint8_t* data, const uint8_t* end, const McuBox& box, const Skipper& skipper,
                bool avx2) {
        const int rows = box.row_end - box.row_begin, columns = box.column_end - box.column_begin;
        const bool two_lanes = columns < box.per_row && end - data < kLargeScan;
        const int long_rows =
            two_lanes ? (rows * columns + box.per_row) / (columns + box.per_row) : rows;
        const int split = box.row_end - (long_rows > 0 ? long_rows : 1);
        count_ = 0;
        used_ = 0;
        if (!bytes_.reserve(size_t(end - data) + kBitPadding) ||
            !intervals_.reserve(size_t(rows) + 1))
            return kOutOfMemory;
        const int needed = box.row_end * box.per_row;
        append(data, end, 0, needed, needed == box.total);
        const Interval whole = intervals_[0];
        SkipState state = {BitReader(bytes_.data(), whole.size), {}};
        int mcu = 0;
        for (int row = box.row_begin; row <= split; ++row) {
            const int first = row * box.per_row + box.column_begin;
            const int last = row * box.per_row + box.column_end;
            Interval& interval = intervals_[row == split ? 0 : count_++];
            if (!skipper.skip(state, first - mcu, avx2) || state.bits.bits_left() < 0) break;
            interval = whole;
            interval.first_mcu = mcu = first;
            interval.enter(state);
            if (row == split) {
                interval.num_mcus = needed - first;
                return kOk;
            }
            interval.num_mcus = columns;
            interval.end = Interval::kGoesOn;
            if (!skipper.skip(state, columns, avx2)) break;
            mcu = last;
        }
        intervals_[0] = whole;
        count_ = 1;
        return kOk;
    }

    // By a table, which `points` was opened with. In each row of the box one interval, from the
    // last point before the box to the first one behind it, but none across a restart marker.
    Status find(const uint8_t* data, const uint8_t* end, int restart_interval, const McuBox& box,
                SeekTableReader& points) {
        const size_t bytes = end - data, rows = size_t(box.row_end - box.row_begin);
        // Each marker takes two bytes of the file, whatever the header says.
        size_t markers = restart_interval ? size_t(box.total) / restart_interval : 0;
        if (markers > bytes / 2) markers = bytes / 2;
        const size_t most = rows + markers;
        count_ = 0;
        used_ = 0;
        if (!bytes_.reserve(bytes + most * (kBitPadding + 1)) || !intervals_.reserve(most))
            return kOutOfMemory;
        const int last_needed = (box.row_end - 1) * box.per_row + box.column_end - 1;
        SeekPoint first = points.point(), from = first;
        for (bool open = false; from.mcu <= last_needed;) {
            if (const Status status = points.advance()) return status;
            const SeekPoint& to = points.point();
            if (!open) first = from;
            open = next_in_box(box, from.mcu) < to.mcu;
            const bool goes_on =
                !to.restart && to.mcu % box.per_row != 0 && next_in_box(box, to.mcu) == to.mcu;
            if (open && !goes_on) {
                if (size_t(count_) == most) return kBadSeekTable;
                if (const Status status = append(data, end, restart_interval, first, to, box.total))
                    return status;
                open = false;
            }
            from = to;
        }
        return kOk;
    }

    int count() const { return count_; }
    const Interval& operator[](int i) const { return intervals_[i]; }
    BitReader reader(int i) {
        const Interval& interval = intervals_[i];
        BitReader reader(bytes_.data() + interval.offset, interval.size);
        if (interval.first_bit) {
            reader.refill();
            reader.skip(interval.first_bit);
        }
        return reader;
    }
    const uint8_t* bytes_of(int i) const { return bytes_.data() + intervals_[i].offset; }
    // Gives back what one huge picture needed.
    void trim() {
        if (bytes_.bytes() + intervals_.bytes() <= kKeep) return;
        bytes_.release();
        intervals_.release();
    }

  private:
    static constexpr size_t kKeep = size_t{32} << 20;
    static constexpr ptrdiff_t kLargeScan = ptrdiff_t{1} << 20;

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
        intervals_[count_++] = {
            used_, size, first, length, checked ? Interval::kComplete : Interval::kGoesOn,
            0,     0,    {},    {}};
        used_ += size + kBitPadding;
        return data;
    }

    // What lies between two seek points, of which the second may be the end of the scan.
    Status append(const uint8_t* data, const uint8_t* end, int restart_interval,
                  const SeekPoint& from, const SeekPoint& to, int total) {
        const uint8_t* at = data + from.position / 8;
        Interval interval = {used_,
                             0,
                             from.mcu,
                             to.mcu - from.mcu,
                             Interval::kComplete,
                             static_cast<uint8_t>(from.position % 8),
                             0,
                             {},
                             {}};
        std::memcpy(interval.dc, from.dc, sizeof interval.dc);
        uint8_t* const out = bytes_.data() + used_;
        if (to.mcu == total) {
            interval.size = copy_interval(at, end, out);
        } else if (to.restart) {
            const uint8_t* const next = data + to.position / 8;
            interval.size = copy_interval(at, next, out);
            const int marker = kRST0 + (to.mcu / restart_interval - 1) % 8;
            if (next - at != 2 || at[1] != marker) return kBadRestart;
        } else {
            const uint8_t* const next = data + to.position / 8;
            const unsigned bit = to.position % 8;
            // Of a pair that begins with FF, the second byte is no place to enter at.
            if (next != at && next[-1] == 0xFF && *next != 0xFF) return kMissedSeekPoint;
            interval.size = copy_interval(at, next, out);
            if (at != next) return kMissedSeekPoint;
            if (bit) {
                out[interval.size++] = *next;
                std::memset(out + interval.size, 0, kBitPadding);
            }
            interval.end = Interval::kSeekPoint;
            interval.bits_left = static_cast<uint8_t>(bit ? 8 - bit : 0);
            std::memcpy(interval.end_dc, to.dc, sizeof interval.end_dc);
        }
        used_ += interval.size + kBitPadding;
        intervals_[count_++] = interval;
        return kOk;
    }

    Array<uint8_t> bytes_;
    Array<Interval> intervals_;
    int count_ = 0;
    size_t used_ = 0;
};

}  // namespace fl
