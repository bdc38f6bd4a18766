// Which instructions to use: chosen once at run time, so that one build serves every processor.
//
// FL_AVX2 marks functions that run only where use_avx2() said yes. FL_INLINE marks the plain C++
// that both paths share: where it is inlined into an FL_AVX2 function, the compiler uses AVX2.
#pragma once

#include <atomic>

#if defined(__x86_64__)
#define FL_X86 1
#include <immintrin.h>
#define FL_AVX2 __attribute__((target("avx2,bmi,bmi2")))
#else
#define FL_X86 0
#define FL_AVX2
#endif

#define FL_INLINE inline __attribute__((always_inline))
#define FL_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

namespace fl {

enum Simd : int { kPortable = 0, kAvx2 = 1 };

inline int best_simd() {
#if FL_X86
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") ? kAvx2 : kPortable;
#else
    return kPortable;
#endif
}

inline std::atomic<int>& simd_level() {
    static std::atomic<int> level{best_simd()};
    return level;
}

inline bool use_avx2() { return simd_level().load(std::memory_order_relaxed) == kAvx2; }

}  // namespace fl
