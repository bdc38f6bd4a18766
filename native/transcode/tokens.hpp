// The symbols of an entropy-coded scan, before they have codes.
//
// Transcoding changes which code stands for a symbol and where prediction restarts, nothing else.
// So a scan is read into tokens (one for each symbol of T.81, F.1.2), their symbols are counted,
// and the same tokens are written with the best codes. The bits that follow a code are carried as
// they are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/array.hpp"
#include "core/huffman.hpp"
#include "transcode/layout.hpp"

namespace fl {

// Key of a symbol: its table (0, 1: DC of luma, chroma; 2, 3: AC of luma, chroma) and the symbol.
constexpr int kTokenTables = 4;
constexpr int kKeys = kTokenTables * 256;
constexpr int kExtraShift = 16;  // a token is key | extra bits << 16; extra bits are at most 11

using Token = uint32_t;

inline Token make_token(int table, int symbol, uint32_t extra) {
    return static_cast<Token>(table) << 8 | static_cast<Token>(symbol) | extra << kExtraShift;
}

// Category and extra bits of a coefficient or DC difference (T.81, F.1.2.1.1): a negative value is
// stored as its low bits less one.
inline int category(int value) {
    const uint32_t magnitude = static_cast<uint32_t>(value < 0 ? -value : value);
    return magnitude ? 32 - __builtin_clz(magnitude) : 0;
}
inline uint32_t extra_bits(int value, int size) {
    return static_cast<uint32_t>(value < 0 ? value - 1 : value) & ((1u << size) - 1);
}

// The tokens of a scan, and where its restart intervals (those to be written) begin.
struct TokenStream {
    Array<Token> tokens;
    size_t num_tokens = 0;
    Array<size_t> intervals;  // index of each interval's first token
    size_t num_intervals = 0;
    int interval = 0;  // in MCUs; 0: one interval

    // Makes room for the tokens of one more MCU.
    [[nodiscard]] bool reserve_mcu() {
        const size_t needed = num_tokens + kMaxBlocks * 64;
        return needed <= tokens.capacity() || tokens.grow(needed + needed / 2);
    }
    [[nodiscard]] bool begin_interval() {
        if (num_intervals == intervals.capacity() && !intervals.grow(64 + 2 * num_intervals))
            return false;
        intervals[num_intervals++] = num_tokens;
        return true;
    }
    void clear() { num_tokens = num_intervals = 0; }
};

}  // namespace fl
