// Where the time of a crop goes. Compiled in with -DFL_STAGES only: benchmarks/bench_decode.py
// builds such a core for itself; otherwise nothing is left of it.
#pragma once

#include <cstdint>

#ifdef FL_STAGES
#include <chrono>
#endif

namespace fl {

enum Stage { kHeaderStage, kHuffmanStage, kIdctStage, kResizeStage, kStageCount };

#ifdef FL_STAGES

struct Stages {
    int64_t nanoseconds[kStageCount] = {};
    std::chrono::steady_clock::time_point last = std::chrono::steady_clock::now();
};
inline Stages& stages() {
    static thread_local Stages stages;
    return stages;
}

// What passed since the last mark was this stage.
inline void mark(Stage stage) {
    const auto now = std::chrono::steady_clock::now();
    stages().nanoseconds[stage] += (now - stages().last).count();
    stages().last = now;
}
inline void begin_marks() { stages().last = std::chrono::steady_clock::now(); }

#else

inline void mark(Stage) {}
inline void begin_marks() {}

#endif

}  // namespace fl
