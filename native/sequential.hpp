// One scan of a sequential JPEG, read into tokens (T.81, F.2.2).
//
// Decoding to pixels wants values; here the symbol and the raw bits behind its code are wanted, so
// the look-up table is another: symbol, code length, total length and coefficients passed in four
// bytes. Where prediction restarts is changed on the way. (Tried and left: a table that finds two
// symbols at once, and EXTEND without a branch: 0 to 4 % less time.)
#pragma once

#include <cstdint>
#include <cstring>

#include "bits.hpp"
#include "huffman.hpp"
#include "intervals.hpp"
#include "layout.hpp"
#include "tokens.hpp"

namespace fl {

constexpr int kMostDcCategory = 11, kMostAcCategory = 10;  // of 8-bit samples: T.81, F.1.2
constexpr int kMostDc = (1 << kMostDcCategory) - 1;
constexpr int kBlockEnd = 128;  // more than any run from any place

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
        uint32_t code = 0;
        int index = 0;
        for (int length = 1; length <= kLookBits; length++, code <<= 1) {
            for (int i = 0; i < spec.counts[length]; i++, code++) {
                const TokenEntry entry = describe(spec.symbols[index++], length);
                const uint32_t slots = 1u << (kLookBits - length);
                for (uint32_t j = 0; j < slots; j++) look_[code * slots + j] = entry;
            }
        }
        return kOk;
    }

    TokenEntry find(uint64_t window) const {
        const TokenEntry entry = look_[window >> (64 - kLookBits)];
        if (__builtin_expect(entry.code_length != 0, 1)) return entry;
        const int found = codes_.find(window);
        return found ? describe(static_cast<uint8_t>(found & 0xFF), found >> 8) : TokenEntry{};
    }

    // Why `find` found nothing.
    Status why(uint64_t window) const {
        const int found = codes_.find(window);
        return found && (found & 15) > (ac_ ? kMostAcCategory : kMostDcCategory) ? kCoefficientRange
                                                                                 : kBadCode;
    }

  private:
    TokenEntry describe(uint8_t symbol, int length) const {
        const int run = symbol >> 4, size = symbol & 15;
        const bool allowed = ac_ ? size <= kMostAcCategory && (size || run == 0 || run == 15)
                                 : symbol <= kMostDcCategory;
        if (!allowed) return {};
        return {symbol, static_cast<uint8_t>(length), static_cast<uint8_t>(length + size),
                static_cast<uint8_t>(ac_ && symbol == 0 ? kBlockEnd : run + 1)};
    }

    TokenEntry look_[1 << kLookBits];
    HuffmanTable codes_;
    bool ac_ = false;
};

// The tokens of a scan, and where its restart intervals (those to be written) begin.
struct TokenStream {
    Array<Token> tokens;
    size_t num_tokens = 0;
    Array<size_t> intervals;  // index of each interval's first token
    size_t num_intervals = 0;
    int interval = 0;  // in MCUs; 0: one interval

    // Room for one more MCU's tokens.
    [[nodiscard]] bool reserve_mcu() {
        const size_t needed = num_tokens + kMostBlocks * 64;
        return needed <= tokens.capacity() || tokens.reserve(needed + needed / 2);
    }
    [[nodiscard]] bool begin_interval() {
        if (num_intervals == intervals.capacity() &&
            !intervals.reserve(64 + 2 * intervals.capacity()))
            return false;
        intervals[num_intervals++] = num_tokens;
        return true;
    }
    void clear() { num_tokens = num_intervals = 0; }
};

struct ScanTables {
    TokenTable dc[4], ac[4];

    Status build(const Header& header) {
        for (int i = 0; i < header.scan.num_components; i++) {
            const ScanComponent& component = header.scan.components[i];
            if (const Status status = dc[i].build(header.dc[component.dc], false)) return status;
            if (const Status status = ac[i].build(header.ac[component.ac], true)) return status;
        }
        return kOk;
    }
};

// Read one block: its DC difference, and a token for each AC symbol.
inline Status read_block(BitReader& shared, const TokenTable& dc, const TokenTable& ac,
                         Token ac_key, int* difference, Token** out) {
    BitReader reader = shared;  // kept in registers
    reader.refill();
    TokenEntry entry = dc.find(reader.window);
    if (__builtin_expect(entry.code_length == 0, 0)) return dc.why(reader.window);
    reader.skip(entry.code_length);
    *difference = extend(reader.take(entry.symbol), entry.symbol);
    Token* token = *out;
    int k = 0;
    while (k < 63) {
        reader.refill();
        for (int i = 0; i < 2 && k < 63; i++) {  // two symbols are at most 2 * (16 + 10) bits
            entry = ac.find(reader.window);
            if (__builtin_expect(entry.code_length == 0, 0)) return ac.why(reader.window);
            // The next look-up waits for nothing but `total_length`.
            const uint64_t behind = reader.window << entry.code_length;
            reader.skip(entry.total_length);
            *token++ = ac_key | entry.symbol |
                       static_cast<uint32_t>(behind >> 1 >> (63 - (entry.symbol & 15)))
                           << kExtraShift;
            k += entry.advance;
        }
    }
    *out = token;
    shared = reader;
    return k > 63 && k < kBlockEnd ? kCoefficientOverrun : kOk;
}

// Read the scan behind the cursor. `keep` false: only see whether it is whole. *mcu is the number
// of MCUs read, for the report of a failure.
inline Status read_sequential(const Header& header, const Visit& visit, const ScanTables& tables,
                              Cursor& cursor, Array<uint8_t>& bytes, TokenStream& stream, bool keep,
                              size_t* mcu) {
    Intervals intervals(cursor, bytes);
    const size_t mcus = visit.mcus();
    int predicted[4] = {}, written[4] = {};
    size_t until_written = 0;
    stream.clear();
    for (*mcu = 0; *mcu < mcus;) {
        BitReader reader;
        if (const Status status = intervals.begin(&reader)) return status;
        std::memset(predicted, 0, sizeof predicted);
        size_t until_read =
            header.restart_interval ? static_cast<size_t>(header.restart_interval) : mcus;
        if (until_read > mcus - *mcu) until_read = mcus - *mcu;
        for (; until_read > 0; until_read--, ++*mcu) {
            if (!stream.reserve_mcu()) return kOutOfMemory;
            if (until_written == 0) {
                until_written = stream.interval ? static_cast<size_t>(stream.interval) : mcus;
                std::memset(written, 0, sizeof written);
                if (!stream.begin_interval()) return kOutOfMemory;
            }
            until_written--;
            Token* token = stream.tokens.data() + stream.num_tokens;
            for (int b = 0; b < visit.blocks; b++) {
                const int part = visit.block[b].part, slot = visit.block[b].slot;
                const int chroma = part > 0;
                Token* const dc_token = token++;
                int difference;
                const Status status = read_block(reader, tables.dc[slot], tables.ac[slot],
                                                 make_token(2 + chroma, 0, 0), &difference, &token);
                if (reader.bits_left() < 0) return intervals.overrun();
                if (status) return status;
                const int dc = predicted[part] += difference;
                const int change = dc - written[part];
                const int size = category(change);
                if (dc < -kMostDc || dc > kMostDc || (keep && size > kMostDcCategory))
                    return kCoefficientRange;
                written[part] = dc;
                *dc_token = make_token(chroma, size, extra_bits(change, size));
            }
            if (keep) stream.num_tokens = static_cast<size_t>(token - stream.tokens.data());
        }
        if (const Status status = intervals.finish(reader)) return status;
        if (*mcu < mcus) {
            if (const Status status = intervals.restart()) return status;
        }
    }
    return intervals.end();
}

}  // namespace fl
