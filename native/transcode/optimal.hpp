// Optimal Huffman codes for counted symbols, with a length limit (ITU-T T.81, Annex K.2).
//
// K.2 builds Huffman's tree and then shortens codes over 16 bits by a heuristic. Package-merge
// (Larmore and Hirschberg, 1990) is used here instead. It is optimal for any limit, so the limit
// may be chosen for the decoder's sake at the least cost there can be.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/huffman.hpp"

namespace fl {

// Least-cost code lengths, none above `limit`, for weights in ascending order.
// lengths[i] belongs to weights[i]; n is at most 257 and at least 2, and n <= 2^limit.
inline void package_merge(const uint64_t* weights, int n, int limit, uint8_t* lengths) {
    constexpr int kMaxItems = 2 * 257;
    bool is_leaf[kMaxCodeLength][kMaxItems];
    uint64_t previous[kMaxItems], merged[kMaxItems];
    std::copy(weights, weights + n, previous);
    std::fill(is_leaf[0], is_leaf[0] + n, true);
    int previous_size = n;
    for (int level = 1; level < limit; ++level) {
        const int packages = previous_size / 2;
        int leaf = 0, package = 0, size = 0;
        while (leaf < n || package < packages) {
            const bool take_leaf =
                package >= packages ||
                (leaf < n && weights[leaf] <= previous[2 * package] + previous[2 * package + 1]);
            is_leaf[level][size] = take_leaf;
            merged[size++] =
                take_leaf ? weights[leaf] : previous[2 * package] + previous[2 * package + 1];
            (take_leaf ? leaf : package)++;
        }
        std::copy(merged, merged + size, previous);
        previous_size = size;
    }
    // The first 2n - 2 items of the last list are the answer; each package stands for two items of
    // the list below, and a leaf's code length is the number of lists in which it is taken.
    std::memset(lengths, 0, n);
    int taken = 2 * n - 2;
    for (int level = limit - 1; level >= 0 && taken > 0; --level) {
        int leaves = 0;
        for (int i = 0; i < taken; ++i) leaves += is_leaf[level][i];
        for (int i = 0; i < leaves; ++i) ++lengths[i];
        taken = 2 * (taken - leaves);
    }
}

// The best table for symbols that occur `frequency[symbol]` times, codes of at most `limit` bits.
// At least one symbol must occur, and fewer than 2^limit. No code is all ones (T.81, Annex C): a
// symbol that never occurs takes the last code and is then left out, as in K.2.
inline HuffmanSpec optimal_codes(const uint32_t* frequency, int limit) {
    uint64_t ranked[257];  // frequency and symbol in one key
    int n = 0;
    ranked[n++] = 0;  // the reserved code: occurs never, so it is among the longest
    for (int symbol = 0; symbol < 256; ++symbol) {
        if (frequency[symbol]) ranked[n++] = uint64_t{frequency[symbol]} << 8 | symbol;
    }
    std::sort(ranked + 1, ranked + n);
    uint64_t weights[257];
    for (int i = 0; i < n; ++i) weights[i] = ranked[i] >> 8;
    uint8_t lengths[257];
    package_merge(weights, n, limit, lengths);

    HuffmanSpec spec = {};
    for (int i = n - 1; i > 0; --i) {  // most frequent, hence shortest, first
        spec.counts[lengths[i]]++;
        spec.symbols[spec.total++] = static_cast<uint8_t>(ranked[i]);
    }
    spec.defined = true;
    return spec;
}

}  // namespace fl
