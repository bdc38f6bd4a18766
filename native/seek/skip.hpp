// Steps over MCUs: their bits and DC values are read, their AC coefficients are not.
//
// A crop wants coefficients; whoever looks for an MCU only wants to know where it begins. So one
// look-up of kLookBits bits passes every symbol whose code lies in them, up to the end of the
// block, and the additional bits of the last one need not lie there. What is accepted is what
// `check_file` accepts (transcode/sequential.hpp): whatever else occurs is left to it to name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/bits.hpp"
#include "core/header.hpp"
#include "core/huffman.hpp"
#include "core/simd.hpp"
#include "decode/decodable.hpp"

namespace fl {

namespace skip_detail {

// A window lasts for so many look-ups, each of at most kMostBits; longer ones are made singly.
constexpr int kLooksPerRefill = 3, kMostBits = 56 / kLooksPerRefill;

// Coefficients of a block that were read, as a byte, after a look-up:
//   1..63     the block goes on
//   64        its last coefficient was read
//   129..191  it ended with an end-of-block code
//   others    a run beyond the block's end, symbols of the next block, or no entry: look again, at
//             one symbol
constexpr unsigned kLookAgain = 0x40;  // and not 64
constexpr unsigned kEndOfSkippedBlock = 128;
// No entry: out of range from any place that the look-up may begin at.
constexpr unsigned kNoFirst = 65, kNoRest = 64;

// bits to skip (8), coefficients to advance (8), DC difference (16).
inline uint32_t entry(unsigned bits, int value, unsigned advance) {
    return bits | advance << 8 | static_cast<uint32_t>(value) << 16;
}
FL_INLINE unsigned advance_of(uint32_t entry) { return entry >> 8 & 0xFF; }
FL_INLINE int value_of(uint32_t entry) { return static_cast<int32_t>(entry) >> 16; }
constexpr int kEndBit = 15;  // of an entry whose last code ends the block

// Bits to skip and coefficients to advance of one AC symbol; 0 where baseline has no such symbol.
inline uint32_t ac_entry(int length, int symbol) {
    const int run = symbol >> 4, size = symbol & 15;
    if (symbol == 0) return entry(unsigned(length), 0, kEndOfSkippedBlock);
    if (size > kMaxAcCategory || (size == 0 && run != 15)) return 0;
    return entry(unsigned(length + size), 0, unsigned(run + 1));
}

}  // namespace skip_detail

// Look-ups for the blocks of one component: one for their beginning, one for all that follows.
class SkipTable {
  public:
    alignas(64) uint32_t first[1 << kLookBits];
    alignas(64) uint32_t rest[1 << kLookBits];

    // Does nothing where the last file had the same codes.
    Status build(const HuffmanSpec& dc, const HuffmanSpec& ac) {
        if (built_ && std::memcmp(&dc_spec_, &dc, sizeof dc) == 0 &&
            std::memcmp(&ac_spec_, &ac, sizeof ac) == 0)
            return kOk;
        built_ = false;
        if (const Status status = dc_.build(dc)) return status;
        if (const Status status = ac_.build(ac)) return status;
        uint32_t tails[2 * kSize];
        build_rest(ac, tails);
        build_first(dc, tails);
        dc_spec_ = dc;
        ac_spec_ = ac;
        built_ = true;
        return kOk;
    }

    // One symbol, where a look-up would not do; needs 27 bits in the window. 0: none is allowed.
    __attribute__((noinline)) uint32_t find(uint64_t window, bool begins) const {
        const int code = (begins ? dc_ : ac_).find(window);
        const int length = code >> 8, symbol = code & 0xFF;
        if (code == 0) return 0;
        if (!begins) return skip_detail::ac_entry(length, symbol);
        if (symbol > kMaxDcCategory) return 0;
        const auto extra = static_cast<unsigned>(window << length >> 1 >> (63 - symbol));
        return skip_detail::entry(unsigned(length + symbol), extend(extra, symbol), 1);
    }

  private:
    static constexpr uint32_t kSize = 1 << kLookBits;

    // `tails`: for each number of bits up to kLookBits, all symbols whose codes lie in them; those
    // for n bits begin at 2^n. What is behind the first symbol is found among those for as many
    // bits as it leaves.
    void build_rest(const HuffmanSpec& ac, uint32_t* tails) {
        using namespace skip_detail;
        std::memset(tails, 0, 2 * kSize * sizeof *tails);
        for (int known = 1; known <= kLookBits; ++known) {
            uint32_t* const table = tails + (size_t{1} << known);
            each_code(ac, known, [&](uint32_t code, int length, int symbol) {
                uint32_t one = ac_entry(length, symbol);
                if ((one & 0xFF) > kMostBits) one = 0;
                const int left = known - length;
                const uint32_t count = 1u << left;
                uint32_t* const out = table + (code << left);
                const int behind = known - static_cast<int>(one & 0xFF);
                if (one == 0 || advance_of(one) == kEndOfSkippedBlock || behind <= 0) {
                    for (uint32_t i = 0; i < count; ++i) out[i] = one;
                    return;
                }
                const uint32_t* const next = tails + (size_t{1} << behind);
                const uint32_t mask = (1u << behind) - 1;
                for (uint32_t i = 0; i < count; ++i) out[i] = joined(one, next[i & mask]);
            });
        }
        const uint32_t* const all = tails + kSize;
        for (uint32_t i = 0; i < kSize; ++i) rest[i] = all[i] ? all[i] : entry(0, 0, kNoRest);
    }

    void build_first(const HuffmanSpec& dc, const uint32_t* tails) {
        using namespace skip_detail;
        for (uint32_t& look : first) look = entry(0, 0, kNoFirst);
        each_code(dc, kLookBits, [&](uint32_t code, int length, int size) {
            const int left = kLookBits - length - size;
            if (size > kMaxDcCategory || left < 0) return;
            for (uint32_t extra = 0; extra < 1u << size; ++extra) {
                const uint32_t one = entry(unsigned(length + size), extend(extra, size), 1);
                uint32_t* const out = first + ((code << size | extra) << left);
                if (left == 0) {
                    *out = one;
                    continue;
                }
                const uint32_t* const next = tails + (size_t{1} << left);
                for (uint32_t i = 0; i < 1u << left; ++i) out[i] = joined(one, next[i]);
            }
        });
    }

    // A symbol and those behind it, unless these do not fit one block whatever came before, or
    // their bits the share of a window.
    static uint32_t joined(uint32_t one, uint32_t next) {
        using namespace skip_detail;
        const unsigned coefficients = advance_of(one) + (advance_of(next) & 0x7F);
        return coefficients < 64 && (one & 0xFF) + (next & 0xFF) <= kMostBits ? one + next : one;
    }

    HuffmanTable dc_, ac_;
    HuffmanSpec dc_spec_, ac_spec_;
    bool built_ = false;
};

// The blocks of an MCU, as a ring.
struct SkipStep {
    const uint32_t* rest;        // of this block
    const uint32_t* next_first;  // of the next one
    const SkipStep* next;
    const SkipTable* table;
    int component, field;
};

// Where an MCU begins: what must be known to decode it.
struct SkipState {
    BitReader bits;
    int32_t dc[3];  // predictors
};

namespace skip_detail {

struct Run {
    BitReader bits;
    const uint32_t* look;  // for the next look-up
    const SkipStep* step;
    unsigned count;  // coefficients of the block that were read
    int64_t blocks;  // to go
};

// To the next block.
FL_INLINE void end_block(Run& run) {
    run.look = run.step->next_first;
    run.step = run.step->next;
    run.count = 0;
    --run.blocks;
}

// Goes on in the block, or to the next one where `found` ended it by a code. Without a branch, for
// which no predictor could foresee the end of a block; it is assembly for the reason given in
// decode/lanes.hpp. It looks at the entry, not at the count, as the next look-up waits for it.
FL_INLINE void go_on(Run& run, uint32_t found, unsigned count) {
#if FL_X86
    const uint32_t* look = run.step->rest;
    asm("btl %[end_bit], %[found]\n\t"
        "cmovcq %[first], %[look]\n\t"
        "cmovcq %[next], %[step]\n\t"
        "cmovcl %k[zero], %[count]\n\t"
        "sbbq $0, %[blocks]"
        :
        [count] "+&r"(count), [look] "+&r"(look), [step] "+&r"(run.step), [blocks] "+&r"(run.blocks)
        : [found] "r"(found), [first] "m"(run.step->next_first), [next] "m"(run.step->next),
          [zero] "r"(0), [end_bit] "i"(kEndBit)
        : "cc");
    run.look = look;
    run.count = count;
#else
    run.look = run.step->rest;
    run.count = count;
    if (found >> kEndBit & 1) end_block(run);
#endif
}

// The predictors in one word, so that they stay in a register: each in a field of its own, biased,
// so that a value in range has no bit above the twelfth, and has none with one added. Where one
// leaves its range, the fields are of no use any more, but such a bit was seen.
constexpr int kFieldBits = 20, kBias = kMaxDc;
constexpr uint64_t kOnes = 1 | uint64_t{1} << kFieldBits | uint64_t{1} << 2 * kFieldBits;
constexpr uint64_t kBeyond =
    uint64_t{0xFF000} | uint64_t{0xFF000} << kFieldBits | uint64_t{0xFF000} << 2 * kFieldBits;

inline uint64_t packed(const int32_t (&dc)[3]) {
    uint64_t fields = 0;
    for (int c = 0; c < 3; ++c) fields |= uint64_t(dc[c] + kBias) << c * kFieldBits;
    return fields;
}
inline void unpack_dc(uint64_t fields, int32_t (&dc)[3]) {
    for (int c = 0; c < 3; ++c)
        dc[c] = static_cast<int32_t>(fields >> c * kFieldBits & 0xFFF) - kBias;
}

// False where the bits are not what baseline allows, or a DC value leaves its range.
FL_INLINE bool run_blocks(const SkipStep* ring, SkipState& state, int64_t blocks) {
    Run run = {state.bits, ring->table->first, ring, 0, blocks};
    uint64_t dc = packed(state.dc), beyond = 0;
    while (run.blocks > 0) {
        refill_entries(run.bits);
        for (int i = 0; i < kLooksPerRefill; ++i) {
            uint32_t found = run.look[run.bits.window >> (64 - kLookBits)];
            unsigned count = run.count + advance_of(found);
            const int field = run.step->field;
            if (FL_UNLIKELY((count & kLookAgain) != 0)) {
                if (count != 64) {
                    refill_entries(run.bits);
                    found = run.step->table->find(run.bits.window, run.count == 0);
                    count = run.count + advance_of(found);
                    if (found == 0 || ((count & kLookAgain) != 0 && count != 64)) return false;
                }
                skip_entry(run.bits, found);
                refill_entries(run.bits);
                run.look = run.step->rest;
                run.count = count;
                if (count >= 64) end_block(run);
            } else {
                skip_entry(run.bits, found);
                go_on(run, found, count);
            }
            dc += static_cast<uint64_t>(int64_t{value_of(found)}) << field;
            beyond |= dc | (dc + kOnes);
            if (FL_UNLIKELY(run.blocks == 0)) break;
        }
    }
    run.bits.count &= 63;
    state.bits = run.bits;
    unpack_dc(dc, state.dc);
    return (beyond & kBeyond) == 0;
}

inline bool run_portable(const SkipStep* ring, SkipState& state, int64_t blocks) {
    return run_blocks(ring, state, blocks);
}
FL_AVX2 inline bool run_avx2(const SkipStep* ring, SkipState& state, int64_t blocks) {
    return run_blocks(ring, state, blocks);  // for BMI2's shifts
}

}  // namespace skip_detail

// Steps over the MCUs of one picture.
class Skipper {
  public:
    // `header` is one that decodable.hpp takes.
    Status build(const Header& header) {
        const Frame& frame = header.frame;
        blocks_ = 0;
        const SkipTable* tables[3];
        for (int i = 0; i < frame.num_components; ++i) {
            const ScanComponent& scan = header.scan.components[i];
            int same = 0;  // the first component with these codes
            while (header.scan.components[same].dc != scan.dc ||
                   header.scan.components[same].ac != scan.ac)
                ++same;
            if (same == i)
                if (const Status status = tables_[i].build(header.dc[scan.dc], header.ac[scan.ac]))
                    return status;
            tables[i] = &tables_[same];
            const Component& component = frame.components[i];
            const int blocks = frame.num_components == 1 ? 1 : component.h * component.v;
            for (int b = 0; b < blocks; ++b)
                ring_[blocks_++] = {tables[i]->rest, nullptr, nullptr,
                                    tables[i],       i,       i * skip_detail::kFieldBits};
        }
        for (int b = 0; b < blocks_; ++b) {
            ring_[b].next = &ring_[(b + 1) % blocks_];
            ring_[b].next_first = ring_[b].next->table->first;
        }
        return kOk;
    }

    int blocks() const { return blocks_; }  // of an MCU

    // False where the bits are none that `check_file` would take. Whether the bits last is for the
    // caller to see in `bits_left`.
    bool skip(SkipState& state, int64_t mcus, bool avx2) const {
        return avx2 ? skip_detail::run_avx2(ring_, state, mcus * blocks_)
                    : skip_detail::run_portable(ring_, state, mcus * blocks_);
    }

    // The same for one block of an MCU.
    bool skip_block(SkipState& state, int block, bool avx2) const {
        return avx2 ? skip_detail::run_avx2(ring_ + block, state, 1)
                    : skip_detail::run_portable(ring_ + block, state, 1);
    }

    const SkipStep& step(int block) const { return ring_[block]; }

  private:
    SkipTable tables_[3];
    SkipStep ring_[kMaxBlocksPerMcu];
    int blocks_ = 0;
};

}  // namespace fl
