// One scan of a progressive JPEG, read into coefficients (T.81, Annex G).
//
// Spectral selection and successive approximation must follow each other as G.1.1.1 says: each bit
// of each coefficient is sent once, from the most significant down. This also bounds the work.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/huffman.hpp"
#include "transcode/coefficients.hpp"
#include "transcode/intervals.hpp"
#include "transcode/layout.hpp"
#include "transcode/sequential.hpp"

namespace fl {

constexpr int kMaxAc = (1 << kMaxAcCategory) - 1;
constexpr int kMaxShift = 13;  // Al, T.81, Table B.3

// Which bits of each coefficient have been sent: all but the lowest `missing`; -1: none.
struct SentBits {
    int8_t missing[4][64];

    SentBits() { std::memset(missing, -1, sizeof missing); }

    // Enters a scan, if it may come next.
    Status advance(const Scan& scan) {
        const int low = scan.approximation_low, high = scan.approximation_high;
        const int first = scan.spectral_start, last = scan.spectral_end;
        const bool band = first == 0 ? last == 0 : scan.num_components == 1 && first <= last;
        if (!band || last > 63 || low > kMaxShift || (high && high != low + 1)) return kBadScan;
        for (int i = 0; i < scan.num_components; ++i) {
            int8_t* component = missing[scan.components[i].component];
            for (int k = first; k <= last; ++k) {
                if (component[k] != (high ? high : -1)) return kBadProgression;
                component[k] = static_cast<int8_t>(low);
            }
        }
        return kOk;
    }
    bool complete(int num_components) const {
        for (int i = 0; i < num_components; ++i)
            for (int k = 0; k < 64; ++k)
                if (missing[i][k]) return false;
        return true;
    }
};

// Coefficients that may still be looked at: an end-of-band run passes 32,767 blocks for three
// bytes, so time would not be bounded by the size of the file. Measured against real files: a blank
// image of 178 megapixels needs 350 a byte, photographs fewer than 10.
struct Budget {
    uint64_t left;

    explicit Budget(size_t bytes) : left((1u << 24) + 1024 * uint64_t(bytes)) {}
    [[nodiscard]] bool spend(uint64_t coefficients) {
        if (coefficients > left) return false;
        left -= coefficients;
        return true;
    }
};

class ProgressiveScan {
  public:
    ProgressiveScan(const Scan& scan, Array<uint8_t>& bytes)
        : low_(scan.approximation_low),
          first_(scan.spectral_start),
          last_(scan.spectral_end),
          refining_(scan.approximation_high > 0),
          scan_(scan),
          bytes_(bytes) {}

    Status build(const Header& header) {
        if (first_ == 0 && refining_) return kOk;  // bits without codes
        for (int i = 0; i < scan_.num_components; ++i) {
            const ScanComponent& component = scan_.components[i];
            const HuffmanSpec& spec =
                first_ == 0 ? header.dc[component.dc] : header.ac[component.ac];
            if (!spec.defined) return kStandardTables;
            if (const Status status = tables_[i].build(spec)) return status;
        }
        return kOk;
    }

    Status read(const Visit& visit, int restart_interval, Cursor& cursor, CoefficientPlane* planes,
                size_t& mcu) {
        IntervalReader intervals(cursor, bytes_);
        const size_t mcus = visit.mcus();
        int row = 0, column = 0;
        for (mcu = 0; mcu < mcus;) {
            if (const Status status = intervals.begin(reader_)) return status;
            std::memset(predicted_, 0, sizeof predicted_);
            run_ = 0;
            for (size_t left = interval_length(restart_interval, mcu, mcus); left > 0;
                 --left, ++mcu) {
                for (int b = 0; b < visit.blocks; ++b) {
                    const Visit::Block& at = visit.block[b];
                    const int y = row * visit.step_rows[at.component] + at.row;
                    const int x = column * visit.step_columns[at.component] + at.column;
                    int16_t* const block = planes[at.component].block(y, x);
                    const Status status = read_block(block, at.slot);
                    if (reader_.bits_left() < 0) return intervals.overrun();
                    if (status) return status;
                }
                if (++column == visit.mcu_columns) {
                    column = 0;
                    ++row;
                }
            }
            if (run_ > 0) return kBadInterval;
            if (const Status status = intervals.finish(reader_)) return status;
            if (mcu < mcus)
                if (const Status status = intervals.restart()) return status;
        }
        return intervals.end();
    }

  private:
    Status read_block(int16_t* block, int slot) {
        if (first_ == 0) return refining_ ? refine_dc(block) : first_dc(block, slot);
        return refining_ ? refine_ac(block) : first_ac(block);
    }

    unsigned bits(int n) {
        if (reader_.count < n) reader_.refill();
        return reader_.take(n);
    }

    Status first_dc(int16_t* block, int slot) {  // G.1.2.1
        reader_.refill();
        const int size = tables_[slot].decode(reader_);
        if (size < 0) return kBadCode;
        if (size > kMaxDcCategory) return kCoefficientRange;
        const int dc = predicted_[slot] += extend(reader_.take(size), size);
        const int value = dc * (1 << low_);
        if (dc < -kMaxDc || dc > kMaxDc || value < -kMaxDc || value > kMaxDc)
            return kCoefficientRange;
        block[0] = static_cast<int16_t>(value);
        return kOk;
    }

    Status refine_dc(int16_t* block) {  // G.1.2.1: one bit of each, in two's complement
        if (bits(1)) block[0] = static_cast<int16_t>(block[0] | 1 << low_);
        return kOk;
    }

    // Length of the end-of-band run that category `r` begins (G.1.2.2); this block is part of it.
    int band_run(int r) { return (1 << r) + static_cast<int>(bits(r)); }

    Status first_ac(int16_t* block) {  // G.1.2.2
        if (run_ > 0) {
            --run_;
            return kOk;
        }
        int k = first_;
        for (; k <= last_; ++k) {
            reader_.refill();
            const int symbol = tables_[0].decode(reader_);
            if (symbol < 0) return kBadCode;
            const int run = symbol >> 4, size = symbol & 15;
            if (size == 0) {
                if (run < 15) {
                    run_ = band_run(run) - 1;
                    return kOk;
                }
                k += 15;
                continue;
            }
            k += run;
            if (k > last_) return kCoefficientOverrun;
            if (size > kMaxAcCategory) return kCoefficientRange;
            const int value = extend(reader_.take(size), size) * (1 << low_);
            if (value < -kMaxAc || value > kMaxAc) return kCoefficientRange;
            block[k] = static_cast<int16_t>(value);
        }
        return k == last_ + 1 ? kOk : kCoefficientOverrun;
    }

    void correct(int16_t& coefficient) {  // one more bit of its magnitude
        if (!bits(1)) return;
        const int step = coefficient < 0 ? -(1 << low_) : 1 << low_;
        coefficient = static_cast<int16_t>(coefficient + step);
    }

    Status refine_ac(int16_t* block) {  // G.1.2.3
        int k = first_;
        if (run_ == 0) {
            for (; k <= last_; ++k) {
                reader_.refill();
                const int symbol = tables_[0].decode(reader_);
                if (symbol < 0) return kBadCode;
                int zeros = symbol >> 4;
                int value = 0;
                if ((symbol & 15) == 1) {
                    value = reader_.take(1) ? 1 << low_ : -(1 << low_);
                    if (value < -kMaxAc || value > kMaxAc) return kCoefficientRange;
                } else if ((symbol & 15) != 0) {
                    return kBadCode;
                } else if (zeros < 15) {
                    run_ = band_run(zeros);
                    break;
                }
                // Pass `zeros` coefficients without history, correcting those with.
                for (; k <= last_; ++k) {
                    if (block[k] != 0)
                        correct(block[k]);
                    else if (--zeros < 0)
                        break;
                }
                if (k > last_) return kCoefficientOverrun;
                block[k] = static_cast<int16_t>(value);
            }
        }
        if (run_ > 0) {
            for (; k <= last_; ++k)
                if (block[k] != 0) correct(block[k]);
            --run_;
        }
        return kOk;
    }

    const int low_, first_, last_;
    const bool refining_;
    const Scan& scan_;
    Array<uint8_t>& bytes_;
    HuffmanTable tables_[4];
    BitReader reader_;
    int predicted_[4] = {};
    int run_ = 0;  // blocks still without new coefficients
};

}  // namespace fl
