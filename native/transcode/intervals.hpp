// The restart intervals of one scan, in order, each as a reader of its bits (T.81, E.2.4).
//
// Nothing is resynchronised: a scan is whole, with every marker in its place, or it is refused.
// What an interval leaves over decides it: a damaged stream loses count, and bytes remain. Only
// bytes 00 and FF may remain, with which some encoders pad.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/array.hpp"
#include "core/bits.hpp"
#include "core/header.hpp"

namespace fl {

class IntervalReader {
  public:
    // `bytes` is working space. A reader of bits stays valid until the next `begin`.
    IntervalReader(Cursor& cursor, Array<uint8_t>& bytes) : cursor_(cursor), bytes_(bytes) {}

    // The next interval's bits; the cursor then stands at the marker that ends the interval.
    Status begin(BitReader& reader) {
        const uint8_t* at = cursor_.data + cursor_.position;
        const uint8_t* const stop = next_marker(at, cursor_.data + cursor_.size);
        uint8_t* const bytes = bytes_.reserve(size_t(stop - at) + kBitPadding);
        if (!bytes) return kOutOfMemory;
        cursor_.position += size_t(stop - at);
        reader = BitReader(bytes, copy_interval(at, stop, bytes));
        return kOk;
    }

    // Whether the interval was consumed to its end.
    Status finish(const BitReader& reader) const {
        const ptrdiff_t left = reader.bits_left();
        if (left < 0) return overrun();
        for (const uint8_t* byte = reader.end - left / 8; byte < reader.end; ++byte)
            if (*byte != 0 && *byte != 0xFF) return kBadInterval;
        return kOk;
    }

    // Steps over the marker between two intervals.
    Status restart() {
        const int marker = next();
        if (marker == kRST0 + restarts_) {
            restarts_ = (restarts_ + 1) & 7;
            cursor_.position += 2;
            return kOk;
        }
        return is_restart(marker) ? kBadRestart : kTruncatedScan;
    }

    // After the last interval: a restart marker may stand here, but no further interval.
    Status end() {
        while (is_restart(next())) {
            cursor_.position += 2;
            BitReader rest;
            if (const Status status = begin(rest)) return status;
            if (const Status status = finish(rest)) return status;
        }
        return kOk;
    }

    // Why bits are missing: the file ends here, or this interval is too short.
    Status overrun() const { return is_restart(next()) ? kBadInterval : kTruncatedScan; }

  private:
    static bool is_restart(int marker) { return marker >= kRST0 && marker <= kRST7; }
    int next() const {
        const size_t at = cursor_.position;
        return cursor_.size - at < 2 ? 0 : cursor_.data[at + 1];
    }

    Cursor& cursor_;
    Array<uint8_t>& bytes_;
    int restarts_ = 0;
};

// MCUs from `mcu` to the end of its restart interval, or of the scan.
inline size_t interval_length(int restart_interval, size_t mcu, size_t mcus) {
    const size_t left = mcus - mcu;
    return restart_interval && size_t(restart_interval) < left ? size_t(restart_interval) : left;
}

}  // namespace fl
