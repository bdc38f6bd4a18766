// The Huffman codes with which a picture is stored.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/huffman.hpp"
#include "transcode/optimal.hpp"
#include "transcode/tokens.hpp"

namespace fl {

// What to emit for each key: the code, shifted to leave room for the extra bits, and the total
// length.
struct Emit {
    uint32_t bits;
    uint32_t length;
};

// The codes of one table, into the 256 entries of `emit`.
inline void assign_codes(const HuffmanSpec& spec, Emit* emit) {
    each_code(spec, kMaxCodeLength, [emit](uint32_t code, int length, int symbol) {
        const uint32_t extra = symbol & 15;
        emit[symbol] = {code << extra, length + extra};
    });
}

// Tables and codes for counted symbols, and the bits that all of them take.
//
// The tables serve the decoder: it looks up kLookBits bits and finds code and value together,
// unless they are longer; then it takes several times as long. So codes have at most 10 bits, and a
// symbol that just does not fit counts double, by which most of them come to fit. Against the
// smallest tables, crops of photographs of 80 kB (4:4:4) decode in 0.309 ms instead of 0.328, and
// files grow by 0.3 % (benchmarks/bench_transcode.py). One set of tables for all images, which
// would spare building them, costs 3.0 to 3.7 % of the bytes: not worth it.
inline uint64_t choose_codes(const uint32_t* frequency, int num_components, bool smallest,
                             HuffmanSpec* specs, Emit* emit) {
    constexpr int kFastLimit = 10;
    constexpr uint32_t kNearlyFits = kLookBits + 3;
    const int limit = smallest ? kMaxCodeLength : kFastLimit;
    const auto assign = [&](const uint32_t* weights) {
        std::memset(emit, 0, kKeys * sizeof *emit);
        for (int table = 0; table < kTokenTables; ++table) {
            if ((table & 1) && num_components == 1) continue;
            specs[table] = optimal_codes(weights + 256 * table, limit);
            assign_codes(specs[table], emit + 256 * table);
        }
    };
    assign(frequency);
    if (!smallest) {
        uint32_t weights[kKeys];
        for (int key = 0; key < kKeys; ++key) {
            const uint32_t length = emit[key].length;
            const bool misses = length > kLookBits && length <= kNearlyFits;
            weights[key] =
                misses && frequency[key] < (1u << 31) ? 2 * frequency[key] : frequency[key];
        }
        assign(weights);
    }
    uint64_t bits = 0;
    for (int key = 0; key < kKeys; ++key) bits += uint64_t{frequency[key]} * emit[key].length;
    return bits;
}

}  // namespace fl
