// Which instructions to use: chosen once at run time, so that one build serves every processor.
//
// FL_AVX2 marks functions that run only where use_avx2() said yes, FL_AVX512 those that run only
// where use_avx512() did. FL_INLINE marks the plain C++
// that both paths share: where it is inlined into an FL_AVX2 function, the compiler uses AVX2.
#pragma once

#include <atomic>

#if defined(__x86_64__)
#define FL_X86 1
// GCC up to 12 takes values that its own AVX-512 functions leave undefined for uninitialized ones.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#define FL_AVX2 __attribute__((target("avx2,bmi,bmi2")))
#define FL_AVX512                                                           \
    __attribute__((                                                         \
        target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi," \
               "avx512vbmi2")))
#else
#define FL_X86 0
#define FL_AVX2
#define FL_AVX512
#endif

#define FL_INLINE inline __attribute__((always_inline))
#define FL_UNLIKELY(condition) __builtin_expect(!!(condition), 0)

namespace fl {

enum Simd : int { kPortable = 0, kAvx2 = 1, kAvx512 = 2 };

inline int best_simd() {
#if FL_X86
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2")) return kPortable;
    return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2")
               ? kAvx512
               : kAvx2;
#else
    return kPortable;
#endif
}

inline std::atomic<int>& simd_level() {
    static std::atomic<int> level{best_simd()};
    return level;
}

inline Simd simd() { return static_cast<Simd>(simd_level().load(std::memory_order_relaxed)); }
inline bool use_avx2() { return simd() >= kAvx2; }
inline bool use_avx512() { return simd() >= kAvx512; }

}  // namespace fl
