// The restart intervals of one scan, in order, each as a reader of its bits (T.81, E.2.4).
//
// Nothing is resynchronised: a scan is whole, with every marker in its place, or it is refused.
// What an interval leaves over decides it: a damaged stream loses count, and bytes remain. Only
// bytes 00 and FF may remain, with which some encoders pad.
#pragma once

#include <cstdint>

#include "bits.hpp"
#include "header.hpp"
#include "tokens.hpp"

namespace fl {

class Intervals {
  public:
    // `bytes` is working space. It stays valid until the next `begin`.
    Intervals(Cursor& cursor, Array<uint8_t>& bytes) : cursor_(cursor), bytes_(bytes) {}

    // The next interval's bits; the cursor then stands at the marker that ends it.
    Status begin(BitReader* reader) {
        const uint8_t* const at = cursor_.data + cursor_.position;
        const uint8_t* const stop = next_marker(at, cursor_.data + cursor_.size);
        const size_t most = static_cast<size_t>(stop - at) + kBitPadding;
        if (!bytes_.reserve(most)) return kOutOfMemory;
        *reader = BitReader(bytes_.data(), unstuff(at, stop, bytes_.data()));
        cursor_.position += static_cast<size_t>(stop - at);
        return kOk;
    }

    // Whether the interval was consumed to its end.
    Status finish(const BitReader& reader) const {
        const ptrdiff_t left = reader.bits_left();
        if (left < 0) return overrun();
        for (const uint8_t* byte = reader.end - left / 8; byte < reader.end; byte++) {
            if (*byte != 0 && *byte != 0xFF) return kBadInterval;
        }
        return kOk;
    }

    // Step over the marker between two intervals.
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
            if (const Status status = begin(&rest)) return status;
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

}  // namespace fl
