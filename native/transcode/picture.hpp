// A whole JPEG file, read to the last bit of its last MCU: as tokens where the scan can stay as it
// is, as coefficients where it cannot.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/array.hpp"
#include "core/header.hpp"
#include "transcode/coefficients.hpp"
#include "transcode/layout.hpp"
#include "transcode/pack.hpp"
#include "transcode/progressive.hpp"
#include "transcode/sequential.hpp"
#include "transcode/tokens.hpp"

namespace fl {

// Where reading stopped, for the report of a failure.
struct Place {
    size_t mcu = 0, mcus = 0;
    int scan = 0;  // from 1
};

// What one thread keeps from one transcoded picture to the next.
struct TranscodeWorkspace {
    Array<uint8_t> bytes;
    TokenStream stream;
    ScanTables tables;  // 85 kB: too much for the stack of some threads

    // Gives back what one huge picture needed: 16 MB hold the tokens of a photograph of 2.5 MB.
    void trim() {
        if (stream.tokens.capacity() > (4u << 20)) stream.tokens.release();
        if (stream.intervals.capacity() > (1u << 20)) stream.intervals.release();
        if (bytes.capacity() > (4u << 20)) bytes.release();
        stream.clear();
    }
};

class Picture {
  public:
    Header header;
    Layout layout = {};          // as in the file
    CoefficientPlane planes[4];  // when `planar`
    QuantTable quant[4];         // of each component
    bool planar = false;         // else as tokens in the workspace
    bool progressive = false;
    Place place;

    explicit Picture(TranscodeWorkspace& workspace) : work_(workspace) {}

    // Reads the header: whether the file can be read further.
    Status open(const uint8_t* data, size_t size) {
        if (const Status status = read_header(data, size, cursor_, header)) return status;
        const Frame& frame = header.frame;
        progressive = frame.marker == kSOF2;
        if (frame.marker > kSOF2) return kOtherProcess;
        if (frame.precision != 8) return kPrecision;
        if (frame.height == 0) return kUndefinedHeight;
        if (int64_t{frame.height} * frame.width > kMaxPixels) return kTooLarge;
        layout = layout_of(frame);
        // A block takes a bit at least, so a header cannot make us reserve what no file could fill.
        uint64_t blocks = 0;
        for (int i = 0; i < layout.num_components; ++i)
            blocks += uint64_t(layout.components[i].rows) * uint64_t(layout.components[i].columns);
        return blocks > 8 * uint64_t{size} ? kTooFewBytes : kOk;
    }

    // Sees whether every scan is whole, keeping nothing of a sequential file of one scan.
    Status check() { return single_scan() ? read_single(0, false) : read_planes(); }

    // Reads every scan. `as_tokens`: a single scan is kept as tokens in restart intervals of
    // `interval` MCUs; all else goes to `planes`.
    Status read(bool as_tokens, int interval) {
        if (!single_scan()) return read_planes();
        if (as_tokens) return read_single(interval, true);
        if (const Status status = read_single(0, true)) return status;
        return allocate() ? unpack_scan() : kOutOfMemory;
    }

  private:
    // All components in one sequential scan, in the order of the frame?
    bool single_scan() const {
        if (progressive || header.scan.num_components != header.frame.num_components) return false;
        for (int i = 0; i < header.scan.num_components; ++i)
            if (header.scan.components[i].component != i) return false;
        return true;
    }

    Status enter_scan(Visit& visit) {
        place.scan = header.num_scans;
        place.mcu = 0;
        if (const Status status = visit_of(layout, header.scan, visit)) return status;
        place.mcus = visit.mcus();
        for (int i = 0; i < header.scan.num_components; ++i) {
            // A component keeps the table that stood when its first scan began.
            const int index = header.scan.components[i].component;
            if (seen_[index]) continue;
            seen_[index] = true;
            quant[index] = header.quant[header.frame.components[index].quant];
            if (!quant[index].defined) return kMissingTable;
        }
        return kOk;
    }

    Status read_single(int interval, bool keep) {
        Visit visit;
        if (const Status status = enter_scan(visit)) return status;
        return read_tokens(visit, interval, keep);
    }

    Status read_tokens(const Visit& visit, int interval, bool keep) {
        if (const Status status = work_.tables.build(header)) return status;
        work_.stream.interval = interval;
        return read_sequential(header, visit, work_.tables, cursor_, work_.bytes, work_.stream,
                               keep, place.mcu);
    }

    bool allocate() {
        planar = true;
        for (int i = 0; i < layout.num_components; ++i)
            if (!planes[i].allocate(layout.components[i])) return false;
        return true;
    }

    Status read_planes() {
        if (!allocate()) return kOutOfMemory;
        return progressive ? read_progressive() : read_separate();
    }

    // Sequential, in several scans: each component comes once.
    Status read_separate() {
        for (int remaining = header.frame.num_components;;) {
            for (int i = 0; i < header.scan.num_components; ++i)
                if (seen_[header.scan.components[i].component]) return kBadScan;
            if (const Status status = read_single(0, true)) return status;
            if (const Status status = unpack_scan()) return status;
            remaining -= header.scan.num_components;
            if (remaining == 0) return kOk;
            if (const Status status = read_to_scan(cursor_, header)) return status;
            if (header.ended) return kTruncatedScan;
        }
    }

    Status read_progressive() {
        SentBits sent;
        Budget budget(cursor_.size);
        do {
            Visit visit;
            if (const Status status = enter_scan(visit)) return status;
            if (const Status status = sent.advance(header.scan)) return status;
            const bool looks = header.scan.approximation_high && header.scan.spectral_start;
            const int band = header.scan.spectral_end - header.scan.spectral_start + 1;
            if (!budget.spend(visit.mcus() * (looks ? uint64_t(band) : 1))) return kTooMuchWork;
            ProgressiveScan scan(header.scan, work_.bytes);
            if (const Status status = scan.build(header)) return status;
            if (const Status status =
                    scan.read(visit, header.restart_interval, cursor_, planes, place.mcu))
                return status;
            if (sent.complete(header.frame.num_components)) return kOk;
            if (const Status status = read_to_scan(cursor_, header)) return status;
        } while (!header.ended);
        // libjpeg smooths such pictures, so their pixels are not those of their coefficients.
        return kMissingScans;
    }

    // Tokens of the last scan read (in one interval) to coefficients.
    Status unpack_scan() {
        Visit visit;
        if (const Status status = visit_of(layout, header.scan, visit)) return status;
        unpack(visit, work_.stream.tokens.data(), planes);
        return kOk;
    }

    TranscodeWorkspace& work_;
    Cursor cursor_ = {};
    bool seen_[4] = {};
};

}  // namespace fl
