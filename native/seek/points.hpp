// Seek points: places where a scan can be entered, and which MCUs of a picture have one.
//
// A restart marker is a place where the bit position is known and the DC predictors are zero. Both
// can be written down instead, for any MCU of any file.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/header.hpp"

namespace fl {

struct SeekPoint {
    int mcu;
    bool restart;     // behind a restart marker, or the scan's beginning: predictors are zero
    size_t position;  // in bits of the scan's bytes as the file holds them, stuffed zeros included
    int16_t dc[3];    // predictors
};

// The MCUs of a scan in which all components are interleaved.
struct McuGrid {
    int per_row, rows, mcu_width;
    int total() const { return per_row * rows; }

    static McuGrid of(const Frame& frame) {
        const bool grey = frame.num_components == 1;  // not interleaved: T.81, A.2.2
        const int width = grey ? 8 : 8 * frame.max_h, height = grey ? 8 : 8 * frame.max_v;
        return {divide_up(frame.width, width), divide_up(frame.height, height), width};
    }
};

// Which MCUs have a point, in order: in every row as many as `per_row` says, the first of them at
// its beginning, and every MCU behind a restart marker.
class PointOrder {
  public:
    PointOrder(const McuGrid& grid, int restart_interval, int per_row)
        : grid_(grid), restart_(restart_interval), per_row_(per_row) {}

    int mcu() const { return mcu_; }
    bool ended() const { return mcu_ >= grid_.total(); }
    bool restart() const { return mcu_ == 0 || (restart_ && mcu_ % restart_ == 0); }
    // Number of the point in its row; -1 where only a restart marker gave it.
    int column() const { return mcu_ == regular() ? column_ : -1; }

    void advance() {
        if (mcu_ == regular() && ++column_ == per_row_) {
            column_ = 0;
            ++row_;
        }
        const int next = regular(), marker = restart_ ? mcu_ - mcu_ % restart_ + restart_ : next;
        mcu_ = marker < next ? marker : next;
        if (mcu_ > grid_.total()) mcu_ = grid_.total();
    }

  private:
    int regular() const {
        return row_ * grid_.per_row + static_cast<int>(int64_t{column_} * grid_.per_row / per_row_);
    }

    McuGrid grid_;
    int restart_, per_row_;
    int row_ = 0, column_ = 0, mcu_ = 0;
};

// Points a row, so that they are about `pixels` apart; below 0: as far apart as pays best, and no
// more of them, at up to 32 bits each, than fit 2.5 % of the file's `bytes`: pages and other smooth
// pictures have few bytes between their points.
//
// Measured on photographs (benchmarks/bench_points.py), CPU time of a random crop against the
// seekable file: 4:2:0 of 43 kB, 0.95 with points 64 or 96 pixels apart, tables of 2.6 and 1.7 % of
// the files; 4:4:4 of 117 kB, whose own Huffman tables are not the best, 1.11 (32), 1.18 (64) and
// 1.18 (96 pixels), tables of 2.7, 1.4 and 0.9 %.
inline int points_per_row(const McuGrid& grid, int width, int pixels, size_t bytes) {
    const bool chosen = pixels < 0;
    if (chosen) pixels = grid.mcu_width == 8 ? 32 : 96;
    int64_t points = (int64_t{width} + pixels / 2) / pixels;
    const int64_t fit = int64_t(bytes) / 160 / grid.rows;
    if (chosen && points > fit) points = fit;
    return static_cast<int>(points < 1 ? 1 : points > grid.per_row ? grid.per_row : points);
}

}  // namespace fl
