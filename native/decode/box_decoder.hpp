// A JPEG and a box -> pixels.
//
//     header -> covering intervals --Huffman--> coefficients --IDCT--> planes
//     planes --upsampling, colour--> column pairs --resize--> [size][size][3]
//
// The decoder decodes the MCUs that the box touches, and those that chroma interpolation at its
// edges touches. Memory is in proportion to these MCUs, and a header may not claim more of them
// than its bytes can hold.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/array.hpp"
#include "core/header.hpp"
#include "core/simd.hpp"
#include "decode/colour.hpp"
#include "decode/decodable.hpp"
#include "decode/geometry.hpp"
#include "decode/idct.hpp"
#include "decode/intervals.hpp"
#include "decode/lanes.hpp"
#include "decode/resize.hpp"
#include "decode/rows.hpp"
#include "decode/stages.hpp"

namespace fl {

// What one thread keeps from one decoded picture to the next.
struct DecodeWorkspace {
    Header header;
    PairTable dc[4];
    PairTable ac[4];
    alignas(32) int16_t quant[3][64];
    CoveringIntervals intervals;
    SeekTableReader points;
    Skipper skipper;
    Array<int16_t> blocks, strip;
    Array<uint8_t> planes;
    ColumnPairs columns;
    Resizer resizer;
    TapsBuilder across, down;

    // Gives back what one huge picture needed.
    void trim() {
        constexpr size_t kKeep = size_t{32} << 20;
        if (planes.bytes() > kKeep) planes.release();
        if (resizer.bytes() > kKeep) resizer.release();
        intervals.trim();
    }
};

class BoxDecoder {
  public:
    explicit BoxDecoder(DecodeWorkspace& workspace) : work_(workspace), simd_(simd()) {}

    // Reads the header and refuses what this decoder does not take.
    Status open(const uint8_t* data, size_t size) {
        const Header& header = work_.header;
        if (const Status status = read_decodable(data, size, work_.header)) return status;
        scan_ = data + header.scan.data_offset;
        end_ = data + size;
        size_ = size;
        return build_tables();
    }

    const Frame& frame() const { return work_.header.frame; }

    // After open(): enters the scan by the seek points of `table` (seek/table.hpp).
    Status enter_by(const uint8_t* table, size_t size) {
        const SeekTarget target = {McuGrid::of(frame()), work_.header.restart_interval,
                                   frame().num_components, size_, size_t(end_ - scan_)};
        by_table_ = true;
        return work_.points.open(table, size, target);
    }

    // Decodes the samples that `box` needs, each block reduced to `block_size` samples a side. Once
    // only after `enter_by`.
    Status decode(const Box& box, int block_size) {
        if (int64_t{box.height} * box.width * block_size * block_size / 64 > kMaxPixels)
            return kTooLarge;
        geometry_ = geometry_of(frame(), box, block_size);
        if (!allocate()) return kOutOfMemory;
        const Status found = find_intervals();
        mark(kHeaderStage);
        if (found) return found;
        if (const Status status = decode_intervals()) return status;
        replicate_edges();
        return kOk;
    }

    // After decode(): resizes a window of the box to [size][size][3].
    Status resize(const Box& box, const Window& window, int size, bool flip, uint8_t* out) {
        const int pixels = 8 / geometry_.block_size, halvings = pixels / 2;  // in a sample
        const int left = box.left - geometry_.left() * pixels;
        const int first_row = (box.top / pixels - geometry_.top()) & ~1;
        const int top = box.top - (geometry_.top() + first_row) * pixels;
        const int rows = pad_rows(divide_up(top + box.height, pixels));
        Taps across, down;
        if (!work_.across.build({left, box.width}, {left + window.left, window.width}, size,
                                halvings, across) ||
            !work_.down.build({top, box.height}, {top + window.top, window.height}, size, halvings,
                              down) ||
            !work_.columns.open(planes(), first_row, rows, simd_) ||
            !work_.resizer.run(work_.columns, across, down, rows, frame().num_components, flip, out,
                               simd_))
            return kOutOfMemory;
        return kOk;
    }

    // After decode() of the whole picture at block size 8: its pixels, [height][width][3].
    Status copy(uint8_t* out) {
        const int height = frame().height, width = frame().width;
        return work_.columns.open(planes(), 0, pad_rows(height), simd_) &&
                       write_rows(work_.columns, work_.strip, height, width, frame().num_components,
                                  out, simd_)
                   ? kOk
                   : kOutOfMemory;
    }

  private:
    // A lane hands over; an interval of usual width fits, and two lanes' 12 KiB the nearest cache.
    static constexpr int kChunkBlocks = 48;
    static constexpr int kPlanePadding = 32;  // rows before and after each column

    bool avx2() const { return simd_ != kPortable; }

    Status build_tables() {
        const Header& header = work_.header;
        const PairTable* first_dc[kMaxBlocksPerMcu];
        int step = 0;
        for (int i = 0; i < frame().num_components; ++i) {
            const ScanComponent& scan = header.scan.components[i];
            const Component& component = frame().components[i];
            PairTable& dc = work_.dc[scan.dc];
            PairTable& ac = work_.ac[scan.ac];
            if (const Status status = dc.build(header.dc[scan.dc], true)) return status;
            if (const Status status = ac.build(header.ac[scan.ac], false)) return status;
            const QuantTable& quant = header.quant[component.quant];
            for (int k = 0; k < 64; ++k) work_.quant[i][k] = static_cast<int16_t>(quant.values[k]);
            for (int b = 0; b < component.h * component.v; ++b, ++step) {
                steps_[step] = {&ac, nullptr, nullptr};
                first_dc[step] = &dc;
            }
        }
        for (int i = 0; i < step; ++i) {
            steps_[i].next = &steps_[(i + 1) % step];
            steps_[i].next_dc = first_dc[(i + 1) % step];
        }
        first_dc_ = first_dc[0];
        return kOk;
    }

    Status find_intervals() {
        const int restart = work_.header.restart_interval;
        const McuBox& mcus = geometry_.mcus;
        if (by_table_) return work_.intervals.find(scan_, end_, restart, mcus, work_.points);
        if (restart == 0 && work_.skipper.build(work_.header) == kOk)
            return work_.intervals.find(scan_, end_, mcus, work_.skipper, avx2());
        return work_.intervals.find(scan_, end_, restart, mcus);
    }

    bool allocate() {
        size_t offset[3], total = 64;
        for (int i = 0; i < geometry_.num_components; ++i) {
            SampleLayout& layout = geometry_.components[i];
            // A reader takes whole vectors of rows, and columns in pairs.
            layout.stride =
                pad_rows(geometry_.rows() * layout.v * layout.block_size) + 2 * kPlanePadding;
            offset[i] = total + kPlanePadding;
            total +=
                layout.stride * (size_t(geometry_.columns()) * layout.h * layout.block_size + 2);
        }
        uint8_t* const room = work_.planes.reserve(total);
        int16_t* const blocks = work_.blocks.reserve(size_t{2} * 64 * kChunkBlocks);
        if (!room || !blocks) return false;
        std::memset(blocks, 0, sizeof(int16_t) * 2 * 64 * kChunkBlocks);
        for (int i = 0; i < geometry_.num_components; ++i)
            geometry_.components[i].plane = room + offset[i];
        return true;
    }

    struct Job {  // a lane, and the part of the picture it is at
        Lane lane;
        int16_t* blocks;
        int mcu;    // of the first block in `blocks`
        int chunk;  // MCUs that fit before the lane hands over
        int left;   // MCUs of the interval from `mcu` on
        int16_t prediction[3];
        const Interval* interval;
    };

    Status decode_intervals() {
        Job jobs[2];
        int next = 0, running = 0;
        while (running < 2 && next < work_.intervals.count()) {
            Job& job = jobs[running];
            job.blocks = work_.blocks.data() + running++ * 64 * kChunkBlocks;
            begin(job, next++);
        }
        while (running > 0) {
            const Status stopped = running == 2 ? run_lanes(jobs[0].lane, jobs[1].lane, avx2())
                                                : run_lane(jobs[0].lane, avx2());
            mark(kHuffmanStage);
            if (stopped) return failed(stopped, jobs, running);
            for (int i = running - 1; i >= 0; --i) {
                Job& job = jobs[i];
                if (job.lane.block != job.lane.stop) continue;
                if (const Status status = hand_over(job)) return status;
                if (job.left > 0)
                    aim(job);
                else if (next < work_.intervals.count())
                    begin(job, next++);
                else
                    job = jobs[--running];  // the other one, if any, goes on alone
            }
        }
        return kOk;
    }

    // The interval to decode as number `index`. Planes are stored column by column, so intervals
    // are decoded in columns where they stand in columns: what is written then stays near.
    int down_columns(int index) const {
        const int rows = geometry_.rows(), count = work_.intervals.count();
        const int length = work_.header.restart_interval;
        if (length == 0 || geometry_.mcus.per_row % length != 0 || count % rows != 0) return index;
        return index % rows * (count / rows) + index / rows;
    }

    void begin(Job& job, int index) {
        index = down_columns(index);
        const Interval& interval = work_.intervals[index];
        job.lane.bits = work_.intervals.reader(index);
        job.lane.step = &steps_[0];
        begin_block(job.lane, first_dc_);
        job.mcu = interval.first_mcu;
        job.left = interval.num_mcus;
        job.interval = &interval;
        std::memcpy(job.prediction, interval.dc, sizeof job.prediction);
        aim(job);
    }

    void aim(Job& job) {
        const int most = kChunkBlocks / geometry_.blocks_per_mcu;
        job.chunk = job.left < most ? job.left : most;
        job.lane.block = job.blocks;
        job.lane.stop = job.blocks + size_t(job.chunk) * geometry_.blocks_per_mcu * 64;
    }

    // Why a lane stopped: where its bytes ran out, that is the reason, whatever it met.
    Status failed(Status status, const Job* jobs, int count) const {
        for (int i = 0; i < count; ++i)
            if (jobs[i].lane.bits.bits_left() < 0) return ran_out(jobs[i]);
        return status;
    }

    Status ran_out(const Job& job) const {
        if (job.interval->end == Interval::kSeekPoint) return kMissedSeekPoint;
        const bool last =
            work_.header.restart_interval == 0 || job.mcu + job.left == geometry_.mcus.total;
        return last ? kTruncatedScan : kBadInterval;
    }

    // A lane has filled its chunk: checks it, transforms the blocks inside the box, clears all.
    Status hand_over(Job& job) {
        if (job.lane.bits.bits_left() < 0) return ran_out(job);
        add_predictions(job);
        for (int i = 0; i < geometry_.num_components; ++i) transform(job, i);
        std::memset(job.blocks, 0, sizeof(int16_t) * 64 * geometry_.blocks_per_mcu * job.chunk);
        mark(kIdctStage);
        job.mcu += job.chunk;
        job.left -= job.chunk;
        return job.left == 0 ? job.interval->arrived(job.lane.bits, job.prediction) : kOk;
    }

    // Makes DC differences coefficients: all of them before the first inverse DCT, which would wait
    // for a value that was only just stored in the middle of what it loads.
    void add_predictions(Job& job) {
        for (int i = 0; i < geometry_.num_components; ++i) {
            const SampleLayout& layout = geometry_.components[i];
            const int blocks = layout.h * layout.v;
            int16_t* block = job.blocks + layout.first_block * 64;
            int16_t prediction = job.prediction[i];
            for (int m = 0; m < job.chunk; ++m, block += geometry_.blocks_per_mcu * 64)
                for (int b = 0; b < blocks; ++b)
                    // Wraps where a damaged file overflows, as libjpeg's coefficients do.
                    block[b * 64] = prediction = static_cast<int16_t>(block[b * 64] + prediction);
            job.prediction[i] = prediction;
        }
    }

    void transform(const Job& job, int index) {
        const McuBox& mcus = geometry_.mcus;
        const SampleLayout& layout = geometry_.components[index];
        const int width = layout.h * layout.block_size, height = layout.v * layout.block_size;
        int row = job.mcu / mcus.per_row, column = job.mcu % mcus.per_row;
        Pending pending{nullptr, nullptr};
        for (int m = 0; m < job.chunk; ++m) {
            const bool inside = row >= mcus.row_begin && row < mcus.row_end &&
                                column >= mcus.column_begin && column < mcus.column_end;
            const int16_t* block =
                job.blocks + size_t(m * geometry_.blocks_per_mcu + layout.first_block) * 64;
            uint8_t* const corner = layout.plane +
                                    ptrdiff_t{column - mcus.column_begin} * width * layout.stride +
                                    ptrdiff_t{row - mcus.row_begin} * height;
            for (int v = 0; v < layout.v; ++v)
                for (int h = 0; h < layout.h && inside; ++h, block += 64) {
                    uint8_t* const out =
                        corner + h * layout.block_size * layout.stride + v * layout.block_size;
                    add_block(pending, block, out, index);
                }
            if (++column == mcus.per_row) {
                column = 0;
                ++row;
            }
        }
        if (pending.block) idct_pair(pending.block, pending.block, pending.out, pending.out, index);
    }

    struct Pending {  // a block that waits for another of its component
        const int16_t* block;
        uint8_t* out;
    };

    void add_block(Pending& pending, const int16_t* block, uint8_t* out, int index) {
        const SampleLayout& layout = geometry_.components[index];
        if (!avx2()) {
            idct_block(block, work_.quant[index], layout.block_size, out, layout.stride);
        } else if (pending.block) {
            idct_pair(pending.block, block, pending.out, out, index);
            pending.block = nullptr;
        } else {
            pending = {block, out};
        }
    }

    void idct_pair(const int16_t* a, const int16_t* b, uint8_t* out_a, uint8_t* out_b, int index) {
        const SampleLayout& layout = geometry_.components[index];
        idct_blocks(a, b, work_.quant[index], layout.block_size, out_a, out_b, layout.stride);
    }

    // Chroma interpolation repeats the picture's first and last chroma rows; the block padding
    // below the last one is not picture.
    void replicate_edges() {
        if (!geometry_.up_v) return;
        for (int i = 1; i < 3; ++i) {
            const SampleLayout& layout = geometry_.components[i];
            const int columns = geometry_.columns() * layout.block_size;
            const int first = geometry_.mcus.row_begin * layout.block_size;
            const int bottom = geometry_.chroma_height - first;
            const int decoded = geometry_.rows() * layout.block_size;
            for (int x = 0; x < columns; ++x) {
                uint8_t* const column = layout.plane + x * layout.stride;
                if (first == 0) column[-1] = column[0];
                if (bottom <= decoded) column[bottom] = column[bottom - 1];
            }
        }
    }

    SamplePlanes planes() const {
        SamplePlanes planes{};
        planes.num_components = geometry_.num_components;
        for (int i = 0; i < planes.num_components; ++i) {
            planes.samples[i] = geometry_.components[i].plane;
            planes.stride[i] = geometry_.components[i].stride;
        }
        planes.up_h = geometry_.up_h;
        planes.up_v = geometry_.up_v;
        planes.fancy = geometry_.fancy;
        if (planes.num_components > 1) {
            const int block_size = geometry_.components[1].block_size;
            const int decoded = geometry_.columns() * block_size;
            const int exist = geometry_.chroma_width - geometry_.mcus.column_begin * block_size;
            planes.chroma_columns = exist < decoded ? exist : decoded;
        }
        return planes;
    }

    DecodeWorkspace& work_;
    const Simd simd_;
    const uint8_t *scan_ = nullptr, *end_ = nullptr;
    size_t size_ = 0;  // of the file
    bool by_table_ = false;
    Geometry geometry_ = {};
    Step steps_[kMaxBlocksPerMcu];
    const PairTable* first_dc_ = nullptr;
};

}  // namespace fl
