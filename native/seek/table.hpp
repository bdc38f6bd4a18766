// The seek points of one file as bytes: docs/format.md describes them.
//
//     version (1)  0 (1)  file size (4)  file CRC-32 (4)  points a row (2)  orders (2)
//     for each point but the first, bit by bit: distance, predictor of each component
//     CRC-32 of all that (4)
//
// A value is written as its difference from that of the point above it, as an Exp-Golomb code of
// the order that suits the table. Measured on 4:2:0 photographs of 43 kB, 96 pixels apart: 26 bits
// a point; with the difference from the point before, 30; in fields of the least fixed width, 34.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/array.hpp"
#include "core/bits.hpp"
#include "core/crc32.hpp"
#include "core/huffman.hpp"
#include "seek/points.hpp"

namespace fl {

namespace table_detail {

constexpr int kVersion = 1;
constexpr size_t kHeaderBytes = 14, kCrcBytes = 4;
constexpr int kFields = 4;                       // distance, three predictors
constexpr int32_t kMaxDistance = (1 << 24) - 1;  // in bits; a code then has at most 51
constexpr int kMaxZeros = 25;                    // before a code's first one, less its order

struct Above {  // the values of the last point in a column
    int32_t values[kFields];
};

// What each value is expected to be: what it was above, or in the first row what it was before.
class Expected {
  public:
    [[nodiscard]] bool open(int per_row) {
        columns_ = per_row;
        Above* const above = above_.reserve(size_t(per_row));
        if (above) std::memset(above, 0, sizeof *above * size_t(per_row));
        before_ = {};
        return above != nullptr;
    }
    // Of the point in `column`; the caller changes it to what it is.
    int32_t* at(int column, bool first_row) {
        if (column < 0) return before_.values;
        Above& above = above_[size_t(column)];
        if (first_row && column > 0) above = above_[size_t(column) - 1];
        return above.values;
    }

  private:
    Array<Above> above_;
    Above before_;  // of points outside the columns
    int columns_ = 0;
};

inline uint32_t folded(int32_t value) {  // 0, -1, 1, -2… -> 0, 1, 2, 3…
    return static_cast<uint32_t>(value) << 1 ^ static_cast<uint32_t>(value >> 31);
}
inline int32_t unfolded(uint32_t value) {
    return static_cast<int32_t>(value >> 1 ^ (0u - (value & 1)));
}
inline int bits_of(uint32_t value) { return 32 - __builtin_clz(value); }  // value > 0
inline int code_length(uint32_t value, int order) {
    return 2 * bits_of((value >> order) + 1) - 1 + order;
}

inline void put16(uint8_t* p, unsigned value) {
    p[0] = static_cast<uint8_t>(value);
    p[1] = static_cast<uint8_t>(value >> 8);
}
inline void put32(uint8_t* p, uint32_t value) {
    put16(p, value & 0xFFFF);
    put16(p + 2, value >> 16);
}
inline uint32_t get16(const uint8_t* p) { return p[0] | uint32_t{p[1]} << 8; }
inline uint32_t get32(const uint8_t* p) { return get16(p) | get16(p + 2) << 16; }

// Bits, most significant first, without any stuffing.
class PlainBits {
  public:
    explicit PlainBits(uint8_t* out) : out_(out) {}
    void put(uint64_t bits, int length) {  // length in [0, 56]
        held_ = held_ << length | bits;
        for (count_ += length; count_ >= 8; count_ -= 8)
            *out_++ = static_cast<uint8_t>(held_ >> (count_ - 8));
    }
    uint8_t* finish() {
        if (count_ > 0) put(0, 8 - count_);
        return out_;
    }

  private:
    uint8_t* out_;
    uint64_t held_ = 0;
    int count_ = 0;
};

}  // namespace table_detail

// What a table belongs to.
struct SeekTarget {
    McuGrid grid;
    int restart_interval;
    int num_components;
    size_t file_size;
    size_t scan_size;  // bytes from the scan's first one to the end of the file
};

// Writes tables.
class SeekTableWriter {
  public:
    // The points as PointOrder has them, without the first. Returns the bytes, which `out` owns and
    // of which there are `size`; null without memory. `size` is 0 where a distance is too large.
    uint8_t* write(const SeekTarget& target, uint32_t file_crc, int per_row,
                   const SeekPoint* points, size_t count, Array<uint8_t>& out, size_t& size) {
        using namespace table_detail;
        size = 0;
        uint32_t* const values = values_.grow(kFields * (count + 1));
        if (!values || !expected_.open(per_row)) return nullptr;
        bool fits = target.file_size <= UINT32_MAX;
        size_t positions = 0;
        PointOrder order(target.grid, target.restart_interval, per_row);
        for (size_t i = 0; i < count; ++i) {
            order.advance();
            const SeekPoint& point = points[i];
            const size_t distance = point.position - positions;
            positions = point.position;
            if (distance > size_t{kMaxDistance}) fits = false;
            int32_t* const expected =
                expected_.at(order.column(), order.mcu() < target.grid.per_row);
            const auto put = [&](int field, int32_t value) {
                values[kFields * i + size_t(field)] = folded(value - expected[field]);
                expected[field] = value;
            };
            put(0, static_cast<int32_t>(distance & kMaxDistance));
            for (int c = 0; c < target.num_components && !point.restart; ++c)
                put(1 + c, point.dc[c]);
        }
        int orders[kFields];
        uint64_t bits = 0;
        for (int field = 0; field < kFields; ++field)
            bits += choose(values, points, count, target, field, orders[field]);
        const size_t most = kHeaderBytes + size_t(bits / 8 + 1) + kCrcBytes;
        uint8_t* const table = out.reserve(most);
        if (!table || !fits) return table;

        table[0] = kVersion;
        table[1] = 0;
        put32(table + 2, static_cast<uint32_t>(target.file_size));
        put32(table + 6, file_crc);
        put16(table + 10, static_cast<unsigned>(per_row));
        put16(table + 12,
              static_cast<unsigned>(orders[0] | orders[1] << 4 | orders[2] << 8 | orders[3] << 12));
        PlainBits writer(table + kHeaderBytes);
        for (size_t i = 0; i < count; ++i)
            for (int field = 0; field < fields(points[i], target); ++field) {
                const uint32_t value = values[kFields * i + size_t(field)];
                const int k = orders[field];
                const uint32_t prefix = (value >> k) + 1;
                writer.put(prefix, 2 * bits_of(prefix) - 1);
                writer.put(value & ((1u << k) - 1), k);
            }
        uint8_t* const end = writer.finish();
        put32(end, crc32(table, size_t(end - table)));
        size = size_t(end - table) + kCrcBytes;
        return table;
    }

  private:
    static int fields(const SeekPoint& point, const SeekTarget& target) {
        return point.restart ? 1 : 1 + target.num_components;
    }

    // The better of two orders near the mean, and the bits that the field then takes.
    static uint64_t choose(const uint32_t* values, const SeekPoint* points, size_t count,
                           const SeekTarget& target, int field, int& order) {
        using namespace table_detail;
        uint64_t sum = 0, holders = 1;
        const auto each = [&](auto take) {
            for (size_t i = 0; i < count; ++i)
                if (field < fields(points[i], target)) take(values[kFields * i + size_t(field)]);
        };
        each([&](uint32_t value) { sum += value, ++holders; });
        const int near = bits_of(static_cast<uint32_t>(sum / holders) + 1) - 1;
        uint64_t best = UINT64_MAX;
        for (int k = near > 15 ? 15 : near; k >= 0 && k >= near - 1; --k) {
            uint64_t bits = 0;
            each([&](uint32_t value) { bits += uint64_t(code_length(value, k)); });
            if (bits >= best) continue;
            best = bits;
            order = k;
        }
        return best;
    }

    Array<uint32_t> values_;
    table_detail::Expected expected_;
};

// Reads a table from point to point. Nothing in it is trusted.
class SeekTableReader {
  public:
    // kBadSeekTable: it is damaged or not of this file, as far as its size shows.
    Status open(const uint8_t* table, size_t size, const SeekTarget& target) {
        using namespace table_detail;
        if (size < kHeaderBytes + kCrcBytes || table[0] != kVersion || table[1] != 0)
            return kBadSeekTable;
        const size_t body = size - kCrcBytes;
        if (get32(table + body) != crc32(table, body) || get32(table + 2) != target.file_size)
            return kBadSeekTable;
        const int per_row = static_cast<int>(get16(table + 10));
        if (per_row < 1 || per_row > target.grid.per_row) return kBadSeekTable;
        for (int field = 0; field < kFields; ++field)
            orders_[field] = static_cast<int>(get16(table + 12) >> 4 * field & 15);
        const size_t bytes = body - kHeaderBytes;
        uint8_t* const copy = bytes_.reserve(bytes + kBitPadding);
        if (!copy || !expected_.open(per_row)) return kOutOfMemory;
        std::memcpy(copy, table + kHeaderBytes, bytes);
        std::memset(copy + bytes, 0, kBitPadding);
        bits_ = BitReader(copy, bytes);
        order_ = PointOrder(target.grid, target.restart_interval, per_row);
        per_row_mcus_ = target.grid.per_row;
        num_components_ = target.num_components;
        scan_bits_ = 8 * target.scan_size;
        point_ = {0, true, 0, {0, 0, 0}};
        return kOk;
    }

    const SeekPoint& point() const { return point_; }

    // To the next point; behind the last one `point().mcu` is the number of MCUs.
    Status advance() {
        using namespace table_detail;
        order_.advance();
        point_.mcu = order_.mcu();
        point_.restart = order_.restart() || order_.ended();
        std::memset(point_.dc, 0, sizeof point_.dc);
        if (order_.ended()) return kOk;
        int32_t* const values = expected_.at(order_.column(), point_.mcu < per_row_mcus_);
        if (!read(0, values) || values[0] < 1 || values[0] > kMaxDistance) return kBadSeekTable;
        point_.position += size_t(values[0]);
        if (point_.position >= scan_bits_ || (point_.restart && point_.position % 8))
            return kBadSeekTable;
        for (int c = 0; c < num_components_ && !point_.restart; ++c) {
            int32_t* const value = values + 1 + c;
            if (!read(1 + c, value) || *value > kMaxDc || *value < -kMaxDc) return kBadSeekTable;
            point_.dc[c] = static_cast<int16_t>(*value);
        }
        return kOk;
    }

  private:
    bool read(int field, int32_t* value) {
        bits_.refill();
        if (bits_.window == 0) return false;
        const int zeros = __builtin_clzll(bits_.window), order = orders_[field];
        if (zeros + order > table_detail::kMaxZeros) return false;
        bits_.skip(zeros);
        const uint32_t prefix = bits_.peek(zeros + 1);
        bits_.skip(zeros + 1);
        const uint32_t low = bits_.take(order);
        *value += table_detail::unfolded((prefix - 1) << order | low);
        return true;
    }

    Array<uint8_t> bytes_;
    BitReader bits_;
    table_detail::Expected expected_;
    PointOrder order_{{1, 1, 8}, 0, 1};
    SeekPoint point_ = {};
    int orders_[table_detail::kFields] = {};
    int per_row_mcus_ = 0, num_components_ = 0;
    size_t scan_bits_ = 0;
};

}  // namespace fl
