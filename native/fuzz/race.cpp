// Threads that decode one batch together, transcode, check and index: `race SECONDS SEEDS`.
//
// Built with -fsanitize=thread by scripts/fuzz. All threads read the same encoded images and write
// disjoint parts of one output; the result must be that of one thread.
#include <dirent.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "transcode/facts.hpp"

extern "C" {
void fl_decode_boxes(const uint8_t* buffer, const int64_t* starts, const int64_t* sizes,
                     int64_t count, const uint8_t* tables, const int64_t* table_starts,
                     const int64_t* table_sizes, const int32_t* boxes, const double* windows,
                     const uint8_t* flips, int32_t size, uint8_t* out, int32_t* statuses,
                     int64_t* nanoseconds);
int fl_picture_size(const uint8_t* data, size_t bytes, int32_t* height, int32_t* width);
int fl_transcode(const uint8_t* data, size_t size, int interval_pixels, int smallest, int orient,
                 fl::Facts* facts);
int fl_check(const uint8_t* data, size_t size, fl::Facts* facts);
int fl_seek_points(const uint8_t* data, size_t size, int interval_pixels, uint32_t* file_crc,
                   fl::Facts* facts);
void fl_crc32_many(const uint8_t* buffer, const int64_t* starts, const int64_t* sizes,
                   int64_t count, uint32_t* out);
void fl_free(void* memory);
int fl_set_simd(int level);
}

namespace {

constexpr int kThreads = 4, kSide = 40;
constexpr size_t kPixels = size_t{kSide} * kSide * 3;

struct Batch {
    std::vector<uint8_t> bytes;
    std::vector<int64_t> starts, sizes;
    std::vector<int32_t> boxes;
    std::vector<uint8_t> flips;
    size_t count() const { return starts.size(); }
};

Batch load(const std::string& folder) {
    Batch batch;
    DIR* entries = opendir(folder.c_str());
    while (const dirent* entry = entries ? readdir(entries) : nullptr) {
        std::FILE* file = std::fopen((folder + "/" + entry->d_name).c_str(), "rb");
        if (!file) continue;
        std::vector<uint8_t> read(1 << 16);
        read.resize(std::fread(read.data(), 1, read.size(), file));
        std::fclose(file);
        int32_t height, width;
        if (read.empty() || fl_picture_size(read.data(), read.size(), &height, &width)) continue;
        batch.starts.push_back(int64_t(batch.bytes.size()));
        batch.sizes.push_back(int64_t(read.size()));
        batch.bytes.insert(batch.bytes.end(), read.begin(), read.end());
        for (const int32_t value : {height / 3, width / 3, height - height / 3, width - width / 3})
            batch.boxes.push_back(value);
        batch.flips.push_back(batch.flips.size() & 1);
    }
    if (entries) closedir(entries);
    return batch;
}

struct Results {
    std::vector<uint8_t> pixels, by_table;
    std::vector<int32_t> statuses, transcoded, checked, indexed;
    std::vector<uint32_t> sums;
    explicit Results(size_t count)
        : pixels(count * kPixels),
          by_table(count * kPixels),
          statuses(count),
          transcoded(count),
          checked(count),
          indexed(count),
          sums(count) {}
    bool operator==(const Results& other) const {
        return pixels == other.pixels && by_table == other.by_table && indexed == other.indexed &&
               statuses == other.statuses && transcoded == other.transcoded &&
               checked == other.checked && sums == other.sums;
    }
};

void work(const Batch& batch, size_t begin, size_t end, Results* results) {
    const auto count = int64_t(end - begin);
    int64_t nanoseconds[2] = {};
    fl_decode_boxes(batch.bytes.data(), batch.starts.data() + begin, batch.sizes.data() + begin,
                    count, nullptr, nullptr, nullptr, batch.boxes.data() + 4 * begin, nullptr,
                    batch.flips.data() + begin, kSide, results->pixels.data() + begin * kPixels,
                    results->statuses.data() + begin, nanoseconds);
    fl_crc32_many(batch.bytes.data(), batch.starts.data() + begin, batch.sizes.data() + begin,
                  count, results->sums.data() + begin);
    for (size_t i = begin; i < end; ++i) {
        const uint8_t* data = batch.bytes.data() + batch.starts[i];
        const auto size = size_t(batch.sizes[i]);
        fl::Facts facts;
        results->checked[i] = fl_check(data, size, &facts);
        uint32_t file_crc;
        results->indexed[i] = fl_seek_points(data, size, 64, &file_crc, &facts);
        if (facts.size) {
            const int64_t none = 0, bytes = batch.sizes[i], table = int64_t(facts.size);
            fl_decode_boxes(data, &none, &bytes, 1, facts.bytes, &none, &table,
                            batch.boxes.data() + 4 * i, nullptr, batch.flips.data() + i, kSide,
                            results->by_table.data() + i * kPixels, &results->indexed[i],
                            nanoseconds);
        }
        fl_free(facts.bytes);
        results->transcoded[i] = fl_transcode(data, size, 64, 0, 1, &facts);
        fl_free(facts.bytes);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    const Batch batch = load(argv[2]);
    if (batch.count() < kThreads) return 2;
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(std::atoi(argv[1]));
    Results expected(batch.count());
    work(batch, 0, batch.count(), &expected);
    int rounds = 0;
    do {
        Results found(batch.count());
        std::vector<std::thread> threads;
        for (size_t n = 0; n < kThreads; ++n) {
            threads.emplace_back([&, n] {
                fl_set_simd(n % 3);  // may change while others decode
                work(batch, batch.count() * n / kThreads, batch.count() * (n + 1) / kThreads,
                     &found);
            });
        }
        for (std::thread& thread : threads) thread.join();
        if (!(found == expected)) {
            std::fprintf(stderr, "threads found other results than one thread\n");
            return 1;
        }
        ++rounds;
    } while (std::chrono::steady_clock::now() < until);
    std::printf("%s: %d rounds of %zu images on %d threads, no race\n", argv[0], rounds,
                batch.count(), kThreads);
    return 0;
}
