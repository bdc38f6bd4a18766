// One pass over a JPEG: whether it is whole, what it is, and the seek points of a baseline scan.
//
// The pass takes less than `check_file` takes (transcode/facts.hpp), so wherever it is not
// satisfied it asks that for the verdict. It follows the same rules, and is satisfied by nothing
// that they refuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/array.hpp"
#include "core/bits.hpp"
#include "core/crc32.hpp"
#include "decode/decodable.hpp"
#include "seek/points.hpp"
#include "seek/skip.hpp"
#include "seek/table.hpp"
#include "transcode/facts.hpp"

namespace fl {

// What one thread keeps from one file to the next.
struct SeekWorkspace {
    Header header;
    Skipper skipper;
    Array<uint8_t> bytes;
    Array<SeekPoint> points;
    SeekTableWriter writer;
    Array<uint8_t> table;
    TranscodeWorkspace check;

    // Gives back what one huge picture needed.
    void trim() {
        constexpr size_t kKeep = size_t{8} << 20;
        if (bytes.bytes() > kKeep) bytes.release();
        if (points.bytes() > kKeep) points.release();
    }
};

class SeekCollector {
  public:
    explicit SeekCollector(SeekWorkspace& workspace) : work_(workspace), avx2_(use_avx2()) {}

    // Whether the file is sound and can be entered; if not, `check_file` has the verdict.
    bool collect(const uint8_t* data, size_t size, int interval_pixels) {
        Header& header = work_.header;
        Cursor cursor;
        if (read_header(data, size, cursor, header) || decodable_frame(header) ||
            decodable_scan(header) || work_.skipper.build(header))
            return false;
        const Frame& frame = header.frame;
        if (int64_t{frame.height} * frame.width > kMaxPixels) return false;
        at_ = scan_ = data + header.scan.data_offset;
        end_ = data + size;
        grid_ = McuGrid::of(frame);
        per_row_ = points_per_row(grid_, frame.width, interval_pixels, size);
        const int restart = header.restart_interval;
        // Markers that are as close as the points would be serve as well.
        wanted_ = restart == 0 || restart > grid_.per_row / per_row_;
        if (!wanted_) per_row_ = 1;
        count_ = 0;
        PointOrder order(grid_, restart, per_row_);
        for (int number = 0; !order.ended(); ++number) {
            if (number > 0 && !restart_marker(number - 1)) return false;
            if (!read_interval(order)) return false;
        }
        // Behind the last interval check_file passes restart markers; such files it shall judge.
        return end_ - at_ < 2 || at_[1] < kRST0 || at_[1] > kRST7;
    }

    // After collect(): the table's bytes, which the workspace owns; none where there is no use for
    // one. Null without memory.
    const uint8_t* table(const uint8_t* data, size_t size, uint32_t file_crc, size_t& bytes) {
        bytes = 0;
        if (!wanted_) return data;
        const SeekTarget target = {grid_, work_.header.restart_interval,
                                   work_.header.frame.num_components, size, size_t(end_ - scan_)};
        return work_.writer.write(target, file_crc, per_row_, work_.points.data(), count_,
                                  work_.table, bytes);
    }

  private:
    bool restart_marker(int number) {
        if (end_ - at_ < 2 || at_[1] != kRST0 + number % 8) return false;
        at_ += 2;
        return true;
    }

    // Reads to the next restart marker, or the scan's end; `order` stands at the first MCU, and
    // goes on to the one behind the last.
    bool read_interval(PointOrder& order) {
        const uint8_t* const stop = next_marker(at_, end_);
        uint8_t* const bytes = work_.bytes.reserve(size_t(stop - at_) + kBitPadding);
        if (!bytes) return false;
        const uint8_t* place = at_;  // in the file, of byte `passed` of `bytes`
        size_t passed = 0;
        const size_t size = copy_interval(at_, stop, bytes);
        SkipState state = {BitReader(bytes, size), {}};
        if (order.mcu() > 0 && !add(order, size_t(place - scan_) * 8, state)) return false;
        for (;;) {
            const int from = order.mcu();
            order.advance();
            if (!work_.skipper.skip(state, order.mcu() - from, avx2_)) return false;
            if (order.ended() || order.restart()) return state.bits.complete();
            const ptrdiff_t left = state.bits.bits_left();
            if (left < 0) return false;
            const size_t bits = 8 * size - size_t(left);
            place = pass_data(place, stop, bits / 8 - passed);
            passed = bits / 8;
            if (!add(order, size_t(place - scan_) * 8 + bits % 8, state)) return false;
        }
    }

    bool add(const PointOrder& order, size_t position, const SkipState& state) {
        if (!wanted_) return true;
        if (count_ == work_.points.capacity() && !work_.points.grow(256 + 2 * count_)) return false;
        SeekPoint& point = work_.points[count_++];
        point = {order.mcu(), order.restart(), position, {}};
        for (int c = 0; c < 3; ++c) point.dc[c] = static_cast<int16_t>(state.dc[c]);
        return true;
    }

    SeekWorkspace& work_;
    const bool avx2_;
    const uint8_t *scan_ = nullptr, *at_ = nullptr, *end_ = nullptr;
    McuGrid grid_ = {};
    int per_row_ = 1;
    bool wanted_ = false;
    size_t count_ = 0;
};

// On success facts.bytes, from malloc, is the table, and facts.size its size; 0 where the file
// cannot be entered by one or needs none. The verdict is that of check_file.
inline Status index_file(const uint8_t* data, size_t size, int interval_pixels, uint32_t& file_crc,
                         SeekWorkspace& work, Facts& facts) {
    file_crc = crc32(data, size);
    SeekCollector collector(work);
    if (!collector.collect(data, size, interval_pixels)) {
        work.trim();
        return check_file(data, size, work.check, facts);
    }
    facts = {};
    size_t bytes = 0;
    const uint8_t* const table = collector.table(data, size, file_crc, bytes);
    facts.bytes = bytes ? static_cast<uint8_t*>(std::malloc(bytes)) : nullptr;
    Status status = kOk;
    if (!table || (bytes && !facts.bytes)) status = kOutOfMemory;
    if (facts.bytes) std::memcpy(facts.bytes, table, bytes);
    facts.size = facts.bytes ? bytes : 0;
    report(status, work.header, false, {}, facts);
    facts.height = work.header.frame.height;
    facts.width = work.header.frame.width;
    facts.restart_interval = work.header.restart_interval;
    work.trim();
    return status;
}

}  // namespace fl
