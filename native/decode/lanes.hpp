// Huffman decoding of restart intervals into coefficients: the inner loop of the decoder.
//
// Huffman decoding is serial: each symbol must be read before the next one's place is known. Two
// restart intervals are therefore decoded side by side ("lanes"), so that the processor has two
// such chains to work on. A lane stops where its interval ends or its block buffer is full; the
// caller then takes the blocks and sets the lane to its next interval.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/bits.hpp"
#include "core/header.hpp"
#include "core/simd.hpp"
#include "decode/lookup.hpp"

namespace fl {

// The blocks of an MCU, as a ring.
struct Step {
    const PairTable* ac;       // of this block
    const PairTable* next_dc;  // of the next one
    const Step* next;
};

// One interval being decoded, as far as the inner loop is concerned.
struct Lane {
    BitReader bits;
    int16_t* block;          // where coefficients go
    const int16_t* stop;     // hand over when `block` gets here
    const PairTable* table;  // for the next look-up
    const Step* step;        // of this block
    const uint8_t* place;    // in kPlaces: by coefficients of the block that were read, in [0, 64)
};

namespace lane_detail {

// By coefficients read once a symbol was taken: where its value goes, in natural order.
//   1..64     the value's place
//   129..191  kEndOfBlock: value 0, to the last place, which then is still 0
//   192..255  kNotInTable: look at the code itself
//   else      a run beyond the block's end: kOverrun
constexpr unsigned kOverrun = 0x80;

struct alignas(256) Places {  // so that the low byte of a position is the number of coefficients
    uint8_t natural[256];
    constexpr Places() : natural() {
        for (int k = 0; k < 256; ++k)
            natural[k] = k >= 1 && k <= 64
                             ? kZigzag[k - 1]
                             : static_cast<uint8_t>(k > 128 && k < 192 ? 63 : kOverrun);
    }
};
inline constexpr Places kPlaces{};

// Goes on to `last`; a block ends there if it has 64 coefficients or an end-of-block code. A branch
// predictor cannot foresee which look-up ends a block, and a wrong guess stops both lanes. So there
// is no branch; it is assembly because compilers make a branch of any C++ that says the same.
FL_INLINE void go_on(Lane& lane, const uint8_t* last) {
    const PairTable* table = lane.step->ac;
#if FL_X86
    int16_t* const next_block = lane.block + 64;
    asm("testb $0xC0, %b[last]\n\t"
        "cmovnz %[next_block], %[block]\n\t"
        "cmovnz %[begin], %[last]\n\t"
        "cmovnz %[next_dc], %[table]\n\t"
        "cmovnz %[next], %[step]"
        :
        [last] "+&q"(last), [block] "+&r"(lane.block), [table] "+&r"(table), [step] "+r"(lane.step)
        : [next_block] "r"(next_block), [begin] "r"(kPlaces.natural),
          [next_dc] "m"(lane.step->next_dc), [next] "m"(lane.step->next)
        : "cc");
#else
    if (reinterpret_cast<uintptr_t>(last) & 0xC0) {
        lane.block += 64;
        last = kPlaces.natural;
        table = lane.step->next_dc;
        lane.step = lane.step->next;
    }
#endif
    lane.table = table;
    lane.place = last;
}

// One look-up.
FL_INLINE Status look_up(Lane& lane) {
    PairEntry entry = lane.table->look[lane.bits.window >> (64 - kLookBits)];
    size_t place = lane.place[entry.first()];
    const uint8_t* last = lane.place + entry.last();
    size_t last_place = *last;
    if (FL_UNLIKELY((last_place & kOverrun) != 0)) {
        // One coefficient by the long way: with its additional bits it exceeds the look-up, or it
        // fills the block and what follows was no second one.
        refill_entries(lane.bits);
        entry = lane.table->find(lane.bits.window);
        if (entry.bits() == 0) return kBadCode;
        last = lane.place + entry.last();
        place = last_place = *last;
        if ((place & kOverrun) != 0) return kCoefficientOverrun;
        skip_entry(lane.bits, static_cast<uint32_t>(entry.word));
        refill_entries(lane.bits);
    } else {
        skip_entry(lane.bits, static_cast<uint32_t>(entry.word));
    }
    lane.block[place] = entry.first_value();
    lane.block[last_place] = entry.last_value();
    go_on(lane, last);
    return kOk;
}

// A window holds 56 bits after a refill: five look-ups, or a longer code, which refills for itself.
constexpr int kLooksPerRefill = 5;
static_assert(kLooksPerRefill * kLookBits <= 56, "a window must last for the group");

FL_INLINE Status run_one(Lane& lane) {
    Lane a = lane;
    Status status = kOk;
    for (;;) {
        refill_entries(a.bits);
        for (int i = 0; i < kLooksPerRefill; ++i) {
            if (FL_UNLIKELY((status = look_up(a)) != kOk)) goto done;
            if (FL_UNLIKELY(a.block == a.stop)) goto done;
        }
    }
done:
    a.bits.count &= 63;
    lane = a;
    return status;
}

FL_INLINE Status run_two(Lane& first, Lane& second) {
    Lane a = first, b = second;
    Status status = kOk;
    for (;;) {
        refill_entries(a.bits);
        refill_entries(b.bits);
        for (int i = 0; i < kLooksPerRefill; ++i) {
            if (FL_UNLIKELY((status = look_up(a)) != kOk)) goto done;
            if (FL_UNLIKELY((status = look_up(b)) != kOk)) goto done;
            if (FL_UNLIKELY(a.block == a.stop)) goto done;
            if (FL_UNLIKELY(b.block == b.stop)) goto done;
        }
    }
done:
    a.bits.count &= 63;
    b.bits.count &= 63;
    first = a;
    second = b;
    return status;
}

inline Status run_one_portable(Lane& lane) { return run_one(lane); }
inline Status run_two_portable(Lane& a, Lane& b) { return run_two(a, b); }
FL_AVX2 inline Status run_one_avx2(Lane& lane) { return run_one(lane); }  // for BMI2's shifts
FL_AVX2 inline Status run_two_avx2(Lane& a, Lane& b) { return run_two(a, b); }

}  // namespace lane_detail

// A block begins with its DC difference.
inline void begin_block(Lane& lane, const PairTable* dc) {
    lane.table = dc;
    lane.place = lane_detail::kPlaces.natural;
}

// Runs until a lane reaches its stop.
inline Status run_lane(Lane& lane, bool avx2) {
    return avx2 ? lane_detail::run_one_avx2(lane) : lane_detail::run_one_portable(lane);
}
inline Status run_lanes(Lane& a, Lane& b, bool avx2) {
    return avx2 ? lane_detail::run_two_avx2(a, b) : lane_detail::run_two_portable(a, b);
}

}  // namespace fl
