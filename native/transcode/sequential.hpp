// One scan of a sequential JPEG, read into tokens (T.81, F.2.2).
//
// Decoding to pixels wants values; here the symbol and the raw bits behind its code are wanted, so
// the look-up table is another: symbol, code length, total length and coefficients passed in four
// bytes. Where prediction restarts is changed on the way. (Tried and left: a table that finds two
// symbols at once, and EXTEND without a branch: 0 to 4 % less time.)
#pragma once

#include <cstdint>
#include <cstring>

#include "core/bits.hpp"
#include "core/huffman.hpp"
#include "core/simd.hpp"
#include "transcode/intervals.hpp"
#include "transcode/layout.hpp"
#include "transcode/tokens.hpp"

namespace fl {

// Bits to token. `code_length` 0: no such code, or none that baseline allows here.
struct TokenEntry {
    uint8_t symbol;
    uint8_t code_length;
    uint8_t total_length;
    uint8_t advance;
};

class TokenTable {
  public:
    Status build(const HuffmanSpec& spec, bool ac) {
        if (!spec.defined) return kStandardTables;
        if (const Status status = codes_.build(spec)) return status;
        ac_ = ac;
        std::memset(look_, 0, sizeof look_);
        each_code(spec, kLookBits, [this](uint32_t code, int length, uint8_t symbol) {
            const TokenEntry entry = entry_of(symbol, length);
            const uint32_t slots = 1u << (kLookBits - length);
            for (uint32_t i = 0; i < slots; ++i) look_[code * slots + i] = entry;
        });
        return kOk;
    }

    TokenEntry find(uint64_t window) const {
        const TokenEntry entry = look_[window >> (64 - kLookBits)];
        if (!FL_UNLIKELY(entry.code_length == 0)) return entry;
        const int found = codes_.find(window);
        return found ? entry_of(static_cast<uint8_t>(found & 0xFF), found >> 8) : TokenEntry{};
    }

    // Why `find` found nothing.
    Status why(uint64_t window) const {
        const int found = codes_.find(window);
        return found && (found & 15) > (ac_ ? kMaxAcCategory : kMaxDcCategory) ? kCoefficientRange
                                                                               : kBadCode;
    }

  private:
    TokenEntry entry_of(uint8_t symbol, int length) const {
        const int run = symbol >> 4, size = symbol & 15;
        const bool allowed = ac_ ? size <= kMaxAcCategory && (size || run == 0 || run == 15)
                                 : symbol <= kMaxDcCategory;
        if (!allowed) return {};
        return {symbol, static_cast<uint8_t>(length), static_cast<uint8_t>(length + size),
                static_cast<uint8_t>(ac_ && symbol == 0 ? kEndOfBlock : run + 1)};
    }

    // Aligned to cache lines: as `new` would place it, transcoding takes 1 % longer.
    alignas(64) TokenEntry look_[1 << kLookBits];
    HuffmanTable codes_;
    bool ac_ = false;
};

struct ScanTables {
    TokenTable dc[4], ac[4];

    Status build(const Header& header) {
        for (int i = 0; i < header.scan.num_components; ++i) {
            const ScanComponent& component = header.scan.components[i];
            if (const Status status = dc[i].build(header.dc[component.dc], false)) return status;
            if (const Status status = ac[i].build(header.ac[component.ac], true)) return status;
        }
        return kOk;
    }
};

// Reads one block: its DC difference, and a token for each AC symbol.
inline Status read_block(BitReader& shared, const TokenTable& dc, const TokenTable& ac,
                         Token ac_key, int& difference, Token*& out) {
    BitReader reader = shared;  // kept in registers
    reader.refill();
    TokenEntry entry = dc.find(reader.window);
    if (FL_UNLIKELY(entry.code_length == 0)) return dc.why(reader.window);
    reader.skip(entry.code_length);
    difference = extend(reader.take(entry.symbol), entry.symbol);
    Token* token = out;
    int k = 0;
    while (k < 63) {
        reader.refill();
        for (int i = 0; i < 2 && k < 63; ++i) {  // two symbols are at most 2 * (16 + 10) bits
            entry = ac.find(reader.window);
            if (FL_UNLIKELY(entry.code_length == 0)) return ac.why(reader.window);
            // The next look-up waits for nothing but `total_length`.
            const uint64_t behind = reader.window << entry.code_length;
            reader.skip(entry.total_length);
            *token++ = ac_key | entry.symbol |
                       static_cast<uint32_t>(behind >> 1 >> (63 - (entry.symbol & 15)))
                           << kExtraShift;
            k += entry.advance;
        }
    }
    out = token;
    shared = reader;
    return k > 63 && k < kEndOfBlock ? kCoefficientOverrun : kOk;
}

// Reads the scan behind the cursor. `keep` false: only sees whether it is whole. `mcu` is the
// number of MCUs read, for the report of a failure.
inline Status read_sequential(const Header& header, const Visit& visit, const ScanTables& tables,
                              Cursor& cursor, Array<uint8_t>& bytes, TokenStream& stream, bool keep,
                              size_t& mcu) {
    IntervalReader intervals(cursor, bytes);
    const size_t mcus = visit.mcus();
    int predicted[4] = {}, written[4] = {};
    size_t until_written = 0;
    stream.clear();
    for (mcu = 0; mcu < mcus;) {
        BitReader reader;
        if (const Status status = intervals.begin(reader)) return status;
        std::memset(predicted, 0, sizeof predicted);
        for (size_t left = interval_length(header.restart_interval, mcu, mcus); left > 0;
             --left, ++mcu) {
            if (!stream.reserve_mcu()) return kOutOfMemory;
            if (until_written == 0) {
                until_written = stream.interval ? size_t(stream.interval) : mcus;
                std::memset(written, 0, sizeof written);
                if (!stream.begin_interval()) return kOutOfMemory;
            }
            --until_written;
            Token* token = stream.tokens.data() + stream.num_tokens;
            for (int b = 0; b < visit.blocks; ++b) {
                const int component = visit.block[b].component, slot = visit.block[b].slot;
                const int chroma = component > 0;
                Token* const dc_token = token++;
                int difference;
                const Status status = read_block(reader, tables.dc[slot], tables.ac[slot],
                                                 make_token(2 + chroma, 0, 0), difference, token);
                if (reader.bits_left() < 0) return intervals.overrun();
                if (status) return status;
                const int dc = predicted[component] += difference;
                const int change = dc - written[component];
                const int size = category(change);
                if (dc < -kMaxDc || dc > kMaxDc || (keep && size > kMaxDcCategory))
                    return kCoefficientRange;
                written[component] = dc;
                *dc_token = make_token(chroma, size, extra_bits(change, size));
            }
            if (keep) stream.num_tokens = size_t(token - stream.tokens.data());
        }
        if (const Status status = intervals.finish(reader)) return status;
        if (mcu < mcus)
            if (const Status status = intervals.restart()) return status;
    }
    return intervals.end();
}

}  // namespace fl
