// The region that covers a box, as a small baseline JPEG with a restart marker after each row, for
// decoders that take whole files.
//
// Nothing is decoded but DC values: the bits of a row are copied as they are. Only where a row
// begins, or the source restarts within it, does a block's DC difference become another; a code
// for that is added to the file's tables where they have none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/bits.hpp"
#include "core/header.hpp"
#include "core/huffman.hpp"
#include "decode/decodable.hpp"
#include "decode/geometry.hpp"
#include "decode/intervals.hpp"
#include "seek/skip.hpp"
#include "transcode/bit_writer.hpp"
#include "transcode/codes.hpp"
#include "transcode/header_writer.hpp"

namespace fl {

struct CutWorkspace {
    Header header;
    CoveringIntervals intervals;
    SeekTableReader points;
    Skipper skipper;
};

struct CutRegion {
    uint8_t* bytes;  // from malloc
    size_t size;
    Box box;  // the same pixels, within the region
};

namespace cut_detail {

// Codes for all DC differences of baseline: those that are missing get codes of 16 bits, behind all
// others, so that no code changes.
inline Status complete_dc(HuffmanSpec& spec) {
    bool known[256] = {};
    uint32_t used = 0;  // codes of 16 bits, or what shorter ones take of them
    for (int i = 0; i < spec.total; ++i) known[spec.symbols[i]] = true;
    for (int length = 1; length <= kMaxCodeLength; ++length)
        used += uint32_t{spec.counts[length]} << (kMaxCodeLength - length);
    for (int size = 0; size <= kMaxDcCategory; ++size) {
        if (known[size]) continue;
        if (++used >= 1u << kMaxCodeLength || spec.total == 256) return kNoRoomForCodes;
        ++spec.counts[kMaxCodeLength];
        spec.symbols[spec.total++] = static_cast<uint8_t>(size);
    }
    return kOk;
}

inline void write_quant(HeaderWriter& writer, const Header& header, int index) {
    const QuantTable& table = header.quant[index];
    writer.begin(kDQT);
    writer.byte(table.sixteen_bit << 4 | index);
    for (const int natural : kZigzag)
        table.sixteen_bit ? writer.word(table.values[natural]) : writer.byte(table.values[natural]);
    writer.end();
}

inline void write_codes(HeaderWriter& writer, const HuffmanSpec& spec, int number) {
    writer.begin(kDHT);
    writer.byte(number);
    writer.bytes(spec.counts + 1, 16);
    writer.bytes(spec.symbols, size_t(spec.total));
    writer.end();
}

constexpr size_t kMostHeaderBytes = 2 + 18 + 3 * (5 + 128) + 19 + 6 * (5 + 16 + 256) + 6 + 14;

// Whether a number was not in `seen` yet; it is from now on.
inline bool is_new(int number, unsigned& seen) {
    const unsigned bit = 1u << number;
    const bool found = (seen & bit) == 0;
    seen |= bit;
    return found;
}

// Returns the end of the header. Tables keep their numbers, and are written once.
inline uint8_t* write_header(const Header& header, const HuffmanSpec* dc, int height, int width,
                             int interval, uint8_t* out) {
    const Frame& frame = header.frame;
    const Scan& scan = header.scan;
    HeaderWriter writer(out);
    writer.marker(kSOI);
    writer.begin(kAPP0);  // JFIF 1.01: every decoder then takes the components as YCbCr
    writer.bytes("JFIF\0\1\1\0\0\1\0\1\0\0", 14);
    writer.end();
    unsigned quants = 0, dcs = 0, acs = 0;
    for (int i = 0; i < frame.num_components; ++i) {
        const int number = frame.components[i].quant;
        if (is_new(number, quants)) write_quant(writer, header, number);
    }
    writer.begin(frame.marker);
    writer.byte(8);
    writer.word(height);
    writer.word(width);
    writer.byte(frame.num_components);
    for (int i = 0; i < frame.num_components; ++i) {
        writer.byte(i + 1);
        writer.byte(frame.components[i].h << 4 | frame.components[i].v);
        writer.byte(frame.components[i].quant);
    }
    writer.end();
    for (int i = 0; i < scan.num_components; ++i) {
        const ScanComponent& tables = scan.components[i];
        if (is_new(tables.dc, dcs)) write_codes(writer, dc[tables.dc], tables.dc);
        if (is_new(tables.ac, acs)) write_codes(writer, header.ac[tables.ac], 0x10 | tables.ac);
    }
    writer.begin(kDRI);
    writer.word(interval);
    writer.end();
    writer.begin(kSOS);
    writer.byte(scan.num_components);
    for (int i = 0; i < scan.num_components; ++i) {
        writer.byte(i + 1);
        writer.byte(scan.components[i].dc << 4 | scan.components[i].ac);
    }
    writer.byte(0);
    writer.byte(63);
    writer.byte(0);
    writer.end();
    return writer.at();
}

// Bits from `from` to `to`, which lie in the reader's bytes.
inline void copy_bits(const uint8_t* bytes, size_t size, size_t from, size_t to,
                      BitWriter& writer) {
    BitReader reader(bytes + from / 8, size - from / 8);
    reader.refill();
    reader.skip(static_cast<int>(from % 8));
    size_t left = to - from;
    for (; left >= 48; left -= 48) {
        reader.refill();
        writer.put(reader.peek(24), 24);
        reader.skip(24);
        writer.put(reader.peek(24), 24);
        reader.skip(24);
    }
    for (reader.refill(); left > 0;) {
        const int length = left < 24 ? static_cast<int>(left) : 24;
        writer.put(reader.peek(length), static_cast<uint32_t>(length));
        reader.skip(length);
        left -= size_t(length);
    }
}

}  // namespace cut_detail

class RegionCutter {
  public:
    explicit RegionCutter(CutWorkspace& workspace) : work_(workspace), avx2_(use_avx2()) {}

    // `table` of `table_size` bytes holds seek points; 0 bytes: none. On success the caller frees
    // result.bytes.
    Status cut(const uint8_t* data, size_t size, const uint8_t* table, size_t table_size,
               const Box& box, CutRegion& result) {
        Header& header = work_.header;
        if (const Status status = read_decodable(data, size, header)) return status;
        const Frame& frame = header.frame;
        if (!lies_inside(box, frame)) return kBadBox;
        if (const Status status = work_.skipper.build(header)) return status;
        for (int i = 0; i < frame.num_components; ++i) {
            const int number = header.scan.components[i].dc;
            dc_[number] = header.dc[number];
            if (const Status status = cut_detail::complete_dc(dc_[number])) return status;
            assign_codes(dc_[number], emit_[number]);
        }
        mcus_ = region_of(frame, box);
        if (const Status status = find_intervals(data, size, table, table_size)) return status;

        const int mcu_height = 8 * frame.max_v, mcu_width = 8 * frame.max_h;
        const int top = mcus_.row_begin * mcu_height, left = mcus_.column_begin * mcu_width;
        const int bottom = mcus_.row_end * mcu_height, right = mcus_.column_end * mcu_width;
        size_t most = cut_detail::kMostHeaderBytes + 2 + 16;
        for (int i = 0; i < work_.intervals.count(); ++i) {
            // Any byte a stuffed one; DC codes of up to 27 bits anew, a marker and padding, in as
            // many intervals as there are here or rows begin in them.
            const Interval& interval = work_.intervals[i];
            const size_t starts = 2 + size_t(interval.num_mcus / mcus_.per_row);
            most += 2 * interval.size + 64 * starts;
        }
        uint8_t* const out = static_cast<uint8_t*>(std::malloc(most));
        if (!out) return kOutOfMemory;
        uint8_t* const begin = cut_detail::write_header(
            header, dc_, (bottom < frame.height ? bottom : frame.height) - top,
            (right < frame.width ? right : frame.width) - left,
            mcus_.column_end - mcus_.column_begin, out);
        BitWriter writer(begin);
        Status status = kOk;
        for (int i = 0; i < work_.intervals.count() && status == kOk; ++i)
            status = copy_interval_of(i, writer);
        if (status) {
            std::free(out);
            return status;
        }
        writer.finish();
        writer.marker(kEOI);
        result = {out,
                  size_t(writer.finish() - out),
                  {box.top - top, box.left - left, box.height, box.width}};
        return kOk;
    }

  private:
    // What the box decoder would decode. libjpeg interpolates chroma in width only where there are
    // more than two samples (jdsample.c), so a region at the right edge may not be too narrow.
    static McuBox region_of(const Frame& frame, const Box& box) {
        const Geometry geometry = geometry_of(frame, box, 8);
        McuBox mcus = geometry.mcus;
        const int chroma_left = geometry.chroma_width - 8 * mcus.column_begin;
        if (geometry.up_h && chroma_left <= 2 && mcus.column_begin > 0) --mcus.column_begin;
        return mcus;
    }

    Status find_intervals(const uint8_t* data, size_t size, const uint8_t* table,
                          size_t table_size) {
        const Header& header = work_.header;
        const uint8_t* const scan = data + header.scan.data_offset;
        const uint8_t* const end = data + size;
        const int restart = header.restart_interval;
        if (table_size == 0) return work_.intervals.find(scan, end, restart, mcus_);
        const SeekTarget target = {McuGrid::of(header.frame), restart, header.frame.num_components,
                                   size, size_t(end - scan)};
        if (const Status status = work_.points.open(table, table_size, target)) return status;
        return work_.intervals.find(scan, end, restart, mcus_, work_.points);
    }

    size_t position(const SkipState& state) const {
        return 8 * size_ - size_t(state.bits.bits_left());
    }

    // Copies of one interval what lies in the region.
    Status copy_interval_of(int index, BitWriter& writer) {
        const Interval& interval = work_.intervals[index];
        bytes_ = work_.intervals.bytes_of(index);
        size_ = interval.size;
        SkipState state = {work_.intervals.reader(index),
                           {interval.dc[0], interval.dc[1], interval.dc[2]}};
        const int end = interval.first_mcu + interval.num_mcus;
        for (int mcu = interval.first_mcu; mcu < end;) {
            const int next = next_in_box(mcus_, mcu);
            if (next != mcu) {
                if (next >= end && interval.end == Interval::kGoesOn) return kOk;
                const int stop = next < end ? next : end;
                if (!work_.skipper.skip(state, stop - mcu, avx2_)) return refused(state, interval);
                mcu = stop;
                continue;
            }
            const int row = mcu / mcus_.per_row;
            if (mcu == row * mcus_.per_row + mcus_.column_begin) begin_row(row, writer);
            const int row_end = row * mcus_.per_row + mcus_.column_end;
            const int stop = row_end < end ? row_end : end;
            if (std::memcmp(written_, state.dc, sizeof written_) != 0) {
                if (!copy_changed(state, writer)) return refused(state, interval);
                ++mcu;
            } else {
                const size_t from = position(state);
                if (!work_.skipper.skip(state, stop - mcu, avx2_) || state.bits.bits_left() < 0)
                    return refused(state, interval);
                cut_detail::copy_bits(bytes_, size_, from, position(state), writer);
                mcu = stop;
            }
            std::memcpy(written_, state.dc, sizeof written_);
        }
        if (state.bits.bits_left() < 0) return refused(state, interval);
        const int16_t dc[3] = {static_cast<int16_t>(state.dc[0]), static_cast<int16_t>(state.dc[1]),
                               static_cast<int16_t>(state.dc[2])};
        return interval.arrived(state.bits, dc);
    }

    void begin_row(int row, BitWriter& writer) {
        if (row > mcus_.row_begin) {
            writer.finish();
            writer.marker(kRST0 + (row - mcus_.row_begin - 1) % 8);
        }
        std::memset(written_, 0, sizeof written_);
    }

    // Copies an MCU whose predictors are others in the region than in the source.
    bool copy_changed(SkipState& state, BitWriter& writer) {
        for (int b = 0; b < work_.skipper.blocks(); ++b) {
            const SkipStep& step = work_.skipper.step(b);
            const int component = step.component;
            const size_t from = position(state);
            state.bits.refill();
            const uint32_t first = step.table->find(state.bits.window, true);
            if (first == 0) return false;
            const int dc = state.dc[component] + skip_detail::value_of(first);
            if (!work_.skipper.skip_block(state, b, avx2_) || state.bits.bits_left() < 0)
                return false;
            const int change = dc - written_[component], size = category(change);
            if (size > kMaxDcCategory) return false;
            const Emit code = emit_[work_.header.scan.components[component].dc][size];
            writer.put(code.bits | extra_bits(change, size), code.length);
            cut_detail::copy_bits(bytes_, size_, from + (first & 0xFF), position(state), writer);
            written_[component] = dc;
        }
        return true;
    }

    // Why an interval could not be read: its bits ran out, or are no code.
    Status refused(const SkipState& state, const Interval& interval) const {
        if (state.bits.bits_left() >= 0) return kBadCode;
        if (interval.end == Interval::kSeekPoint) return kMissedSeekPoint;
        return work_.header.restart_interval ? kBadInterval : kTruncatedScan;
    }

    CutWorkspace& work_;
    const bool avx2_;
    McuBox mcus_ = {};
    HuffmanSpec dc_[4];
    Emit emit_[4][256];
    const uint8_t* bytes_ = nullptr;  // of the interval
    size_t size_ = 0;
    int32_t written_[3] = {};  // predictors in the region
};

}  // namespace fl
