// Where the time of a crop goes. Two stages are always measured, by four looks at the clock a crop
// (0.1 us). Finer stages are measured only with -DFL_STAGES: benchmarks/bench_decode.py builds such
// a core for itself.
#pragma once

#include <chrono>
#include <cstdint>

namespace fl {

struct Spent {  // nanoseconds
    int64_t decode = 0, resize = 0;
};

inline int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Adds the time from its beginning to its end.
class Stopwatch {
  public:
    explicit Stopwatch(int64_t& total) : total_(total) { total_ -= now(); }
    ~Stopwatch() { total_ += now(); }
    Stopwatch(const Stopwatch&) = delete;
    Stopwatch& operator=(const Stopwatch&) = delete;

  private:
    int64_t& total_;
};

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

// Adds the time since the last mark to `stage`.
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
