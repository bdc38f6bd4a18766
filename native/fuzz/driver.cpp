// A small coverage-guided fuzzer, for machines that have g++ but no libFuzzer.
//
//     TARGET_fuzz SECONDS SEEDS CRASHES [RANDOM_SEED]
//
// Calls LLVMFuzzerTestOneInput with mutations of the files in SEEDS until the time is over, keeps
// inputs that reach new edges (g++ -fsanitize-coverage=trace-pc), and writes the input on which a
// sanitizer stops, or that takes over ten seconds, to CRASHES. Given files instead of a number of
// seconds, it runs each once.
#include <dirent.h>
#include <sanitizer/common_interface_defs.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

using Bytes = std::vector<uint8_t>;

namespace {

constexpr size_t kLongest = 1 << 17;
constexpr int kSlowSeconds = 10;  // under sanitizers; a megabyte takes one

constexpr size_t kEdges = 1 << 14;
uint8_t edges[kEdges];  // of the run in progress
uint8_t known_edges[kEdges];
uintptr_t previous_edge;

const Bytes* current = nullptr;  // for the report of a crash
std::string crash_folder = ".";

uint64_t random_state = 1;
uint32_t random_below(size_t limit) {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    const uint64_t high = (random_state * 2685821657736338717u) >> 32;
    return static_cast<uint32_t>(high * limit >> 32);
}

double now() {
    timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

bool read_file(const std::string& path, Bytes* bytes) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (!file) return false;
    bytes->resize(8 * kLongest);
    bytes->resize(std::fread(bytes->data(), 1, bytes->size(), file));
    std::fclose(file);
    return true;
}

void save_current() {
    if (!current) return;
    uint64_t hash = 1469598103934665603u;  // FNV-1a
    for (const uint8_t byte : *current) hash = (hash ^ byte) * 1099511628211u;
    char name[32];
    std::snprintf(name, sizeof name, "/crash-%016llx", static_cast<unsigned long long>(hash));
    const std::string path = crash_folder + name;
    if (std::FILE* file = std::fopen(path.c_str(), "wb")) {
        std::fwrite(current->data(), 1, current->size(), file);
        std::fclose(file);
        std::fprintf(stderr, "input of %zu bytes saved as %s\n", current->size(), path.c_str());
    }
}

void on_signal(int number) {
    const char* what = number == SIGALRM ? "too slow" : "aborted";
    std::fprintf(stderr, "%s\n", what);
    save_current();
    std::_Exit(1);
}

void run(const Bytes& input) {
    std::memset(edges, 0, sizeof edges);
    previous_edge = 0;
    current = &input;
    alarm(kSlowSeconds);
    // A copy of exactly its size, so that reading behind the input is seen.
    uint8_t* copy = static_cast<uint8_t*>(std::malloc(input.size() ? input.size() : 1));
    if (!input.empty()) std::memcpy(copy, input.data(), input.size());
    LLVMFuzzerTestOneInput(copy, input.size());
    std::free(copy);
    alarm(0);
    current = nullptr;
}

// Whether the last run reached an edge, or a count of it in powers of two, not seen before.
bool learn() {
    bool found = false;
    for (size_t i = 0; i < kEdges; ++i) {
        if (!edges[i]) continue;
        const uint8_t bucket = static_cast<uint8_t>(1u << (31 - __builtin_clz(edges[i])));
        if (known_edges[i] & bucket) continue;
        known_edges[i] |= bucket;
        found = true;
    }
    return found;
}

// Offsets of the marker segments of a JPEG, in order; scans count as part of their SOS.
std::vector<size_t> segments(const Bytes& bytes) {
    std::vector<size_t> offsets;
    size_t at = 2;
    while (at + 4 <= bytes.size() && offsets.size() < 200) {
        if (bytes[at] != 0xFF) break;
        offsets.push_back(at);
        const bool scan = bytes[at + 1] == 0xDA;
        at += 2 + (bytes[at + 2] << 8 | bytes[at + 3]);
        while (scan && at + 1 < bytes.size() &&
               !(bytes[at] == 0xFF && bytes[at + 1] != 0 && (bytes[at + 1] & 0xF8) != 0xD0))
            ++at;
    }
    offsets.push_back(at < bytes.size() ? at : bytes.size());
    return offsets;
}

void insert(Bytes* bytes, size_t at, const Bytes& from, size_t begin, size_t end) {
    bytes->insert(bytes->begin() + static_cast<ptrdiff_t>(at),
                  from.begin() + static_cast<ptrdiff_t>(begin),
                  from.begin() + static_cast<ptrdiff_t>(end));
}
void erase(Bytes* bytes, size_t begin, size_t end) {
    bytes->erase(bytes->begin() + static_cast<ptrdiff_t>(begin),
                 bytes->begin() + static_cast<ptrdiff_t>(end));
}

// A byte to change: half of them in the headers, which are short, half anywhere.
size_t place(const Bytes& bytes, const std::vector<size_t>& offsets) {
    if (offsets.size() < 2 || random_below(2)) return random_below(bytes.size());
    const size_t at = offsets[random_below(offsets.size() - 1)] + random_below(36);
    return at < bytes.size() ? at : random_below(bytes.size());
}

void mutate(Bytes* bytes, const std::vector<Bytes>& corpus) {
    static const uint8_t telling[] = {0x00, 0x01, 0x7F, 0x80, 0xC0, 0xC1, 0xC2, 0xC4, 0xD0,
                                      0xD7, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE1, 0xEE, 0xFE,
                                      0xFF, 0x11, 0x22, 0x21, 0x12, 0x3F, 0xF0};
    for (int rounds = 1 << random_below(4); rounds > 0; --rounds) {
        if (bytes->empty()) bytes->push_back(0xFF);
        const std::vector<size_t> offsets = segments(*bytes);
        const size_t at = place(*bytes, offsets), size = bytes->size();
        const Bytes& other = corpus[random_below(corpus.size())];
        switch (random_below(10)) {
            case 0:
                (*bytes)[at] ^= static_cast<uint8_t>(1u << random_below(8));
                break;
            case 1:
                (*bytes)[at] = telling[random_below(sizeof telling)];
                break;
            case 2:
                (*bytes)[at] = static_cast<uint8_t>(random_below(256));
                break;
            case 3:
                (*bytes)[at] = static_cast<uint8_t>((*bytes)[at] + random_below(9) - 4);
                break;
            case 4:
                erase(bytes, at, at + random_below(std::min<size_t>(size - at, 40) + 1));
                break;
            case 5: {
                const Bytes copy(*bytes);
                insert(bytes, at, copy, at, at + random_below(std::min<size_t>(size - at, 40) + 1));
                break;
            }
            case 6: {  // a segment again, or one of another file
                const Bytes from = random_below(2) ? *bytes : other;
                const std::vector<size_t> theirs = segments(from);
                if (theirs.size() < 2 || offsets.size() < 2) break;
                const size_t which = random_below(theirs.size() - 1);
                insert(bytes, offsets[random_below(offsets.size())], from, theirs[which],
                       theirs[which + 1]);
                break;
            }
            case 7: {  // a segment less
                if (offsets.size() < 2) break;
                const size_t which = random_below(offsets.size() - 1);
                erase(bytes, offsets[which], offsets[which + 1]);
                break;
            }
            case 8:
                if (random_below(4) == 0) bytes->resize(at);
                break;
            default:  // bytes of another file at the same place
                if (other.size() <= at) break;
                for (size_t i = at; i < at + random_below(60) && i < size && i < other.size(); ++i)
                    (*bytes)[i] = other[i];
        }
    }
    if (bytes->size() > kLongest) bytes->resize(kLongest);
}

std::vector<Bytes> load(const std::string& folder) {
    std::vector<Bytes> corpus;
    if (DIR* entries = opendir(folder.c_str())) {
        while (const dirent* entry = readdir(entries)) {
            Bytes bytes;
            struct stat facts;
            const std::string path = folder + "/" + entry->d_name;
            if (stat(path.c_str(), &facts) || !S_ISREG(facts.st_mode)) continue;
            if (read_file(path, &bytes) && bytes.size() <= kLongest) corpus.push_back(bytes);
        }
        closedir(entries);
    }
    return corpus;
}

}  // namespace

extern "C" void __sanitizer_cov_trace_pc() {
    const uintptr_t here = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
    const uintptr_t hash = (here ^ here >> 16) * 0x9E3779B1u >> 8;
    uint8_t& count = edges[(hash ^ previous_edge) % kEdges];
    if (count < 255) ++count;
    previous_edge = hash >> 1;
}

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 0;
    signal(SIGALRM, on_signal);
    signal(SIGABRT, on_signal);
    __sanitizer_set_death_callback(save_current);
    if (seconds <= 0) {
        for (int i = 1; i < argc; ++i) {
            Bytes bytes;
            if (!read_file(argv[i], &bytes)) return 2;
            run(bytes);
        }
        return 0;
    }
    if (argc < 4) return 2;
    crash_folder = argv[3];
    if (argc > 4) random_state = std::strtoull(argv[4], nullptr, 10) * 2 + 1;
    std::vector<Bytes> corpus = load(argv[2]);
    if (corpus.empty()) {
        std::fprintf(stderr, "%s holds no seeds\n", argv[2]);
        return 2;
    }
    const double start = now();
    const size_t num_seeds = corpus.size();
    size_t executions = 0;
    for (size_t i = 0; i < num_seeds; ++i, ++executions) {
        run(corpus[i]);
        learn();
    }
    while (now() - start < seconds) {
        // Half of the time a recent find, as those are explored least.
        const size_t recent = corpus.size() < 64 ? corpus.size() : 64;
        const size_t which = random_below(2) ? random_below(corpus.size())
                                             : corpus.size() - 1 - random_below(recent);
        Bytes input = corpus[which];
        mutate(&input, corpus);
        run(input);
        ++executions;
        if (learn()) corpus.push_back(std::move(input));
    }
    size_t reached = 0;
    for (const uint8_t edge : known_edges) reached += edge != 0;
    std::printf("%s: %zu executions in %.0f s, %zu seeds, %zu inputs kept, %zu edges, no crash\n",
                argv[0], executions, now() - start, num_seeds, corpus.size() - num_seeds, reached);
    return 0;
}
