// Fuzzes seek points: the pass that collects them, and decoding and cutting by a table. The last
// bytes choose box, size and interval, and how the table and then the file are changed.
#include <cstdlib>
#include <cstring>
#include <vector>

#include "decode/decode.hpp"
#include "seek/collect.hpp"
#include "seek/cut.hpp"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kChoice = 24;
constexpr int kSizes[] = {1, 7, 16, 33};
constexpr int kIntervals[] = {1, 24, 64, 300};
constexpr size_t kCrcBytes = fl::table_detail::kCrcBytes;

fl::SeekWorkspace seek_work;
fl::TranscodeWorkspace check_work;
fl::DecodeWorkspace decode_work;
fl::CutWorkspace cut_work;

// The pass finds what fl_check finds.
bool index(const Bytes& file, int interval, Bytes* table) {
    fl::Facts found, expected;
    uint32_t crc;
    const int status = fl::index_file(file.data(), file.size(), interval, crc, seek_work, found);
    if (status != fl::check_file(file.data(), file.size(), check_work, expected)) std::abort();
    if (found.height != expected.height || found.width != expected.width ||
        found.num_components != expected.num_components ||
        found.progressive != expected.progressive ||
        found.restart_interval != expected.restart_interval ||
        std::memcmp(found.sampling, expected.sampling, sizeof found.sampling) ||
        std::strcmp(found.reason, expected.reason))
        std::abort();
    if (status) return false;
    table->assign(found.bytes, found.bytes + found.size);
    std::free(found.bytes);
    return true;
}

int decode(const Bytes& file, const Bytes& table, const fl::Box& box, int side, Bytes* pixels) {
    pixels->assign(size_t(side) * size_t(side) * 3, 0xA5);
    fl::Spent spent;
    // Copies of exactly their size, so that reading behind them is seen.
    const Bytes exact_table(table), exact_file(file);
    return fl::decode_box(decode_work, exact_file.data(), exact_file.size(), exact_table.data(),
                          exact_table.size(), box, fl::all_of(box), side, false, pixels->data(),
                          spent);
}

// A table says what the file says; whatever is cut out by it decodes to the same pixels.
void compare(const Bytes& file, const Bytes& table, const fl::Box& box, int side) {
    Bytes expected, found;
    const int status = decode(file, {}, box, side, &expected);
    if (decode(file, table, box, side, &found) != status) std::abort();
    if (status) return;
    if (found != expected) std::abort();
    fl::CutRegion region;
    const int cut = fl::RegionCutter(cut_work).cut(file.data(), file.size(), table.data(),
                                                   table.size(), box, region);
    if (cut == fl::kNoRoomForCodes) return;
    if (cut) std::abort();
    const Bytes bytes(region.bytes, region.bytes + region.size);
    std::free(region.bytes);
    if (decode(bytes, {}, region.box, side, &found)) std::abort();
    if (fl::block_size_for(fl::all_of(box), side) == 8 && found != expected) std::abort();
}

// A wrong table gives the right pixels of a whole picture, or none.
void compare_whole(const Bytes& file, const Bytes& table, int height, int width) {
    Bytes expected, found;
    const fl::Box whole = {0, 0, height, width};
    if (decode(file, table, whole, 16, &found)) return;
    if (decode(file, {}, whole, 16, &expected) || found != expected) std::abort();
}

void change(Bytes* bytes, const uint8_t* choice, size_t begin, size_t end) {
    if (begin >= end) return;
    const size_t at = begin + (choice[0] << 8 | choice[1]) % (end - begin);
    (*bytes)[at] ^= choice[2];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < kChoice) return 0;
    Bytes file(data, data + size);  // behind EOI, what chooses belongs to nothing
    const uint8_t* const choice = data + size - kChoice;
    fl::simd_level() = choice[0] & 1 ? fl::kPortable : fl::best_simd();
    const int side = kSizes[choice[0] >> 1 & 3], interval = kIntervals[choice[0] >> 3 & 3];
    Bytes table;
    if (!index(file, interval, &table)) return 0;
    int height, width;
    {
        fl::BoxDecoder decoder(decode_work);
        if (decoder.open(file.data(), file.size()) != fl::kOk) return 0;
        height = decoder.frame().height;
        width = decoder.frame().width;
    }
    if (int64_t{height} * width > (1 << 20)) return 0;  // sound, but slow here
    const auto word = [&](int i) { return choice[i] << 8 | choice[i + 1]; };
    const int top = word(1) % height, left = word(3) % width;
    const fl::Box box = {top, left, 1 + word(5) % (height - top), 1 + word(7) % (width - left)};
    compare(file, table, box, side);
    if (table.size() < kCrcBytes) return 0;

    if (choice[9] & 1) change(&table, choice + 10, 0, table.size());
    if (choice[9] & 2) change(&table, choice + 13, 0, table.size());
    if (choice[9] & 4) change(&file, choice + 16, 0, file.size());
    if (choice[9] & 8) change(&file, choice + 19, 0, file.size());
    if (choice[9] & 16) table.resize(word(22) % table.size());
    if (table.size() >= kCrcBytes && (choice[9] & 32) == 0) {  // else the CRC stands in the way
        const size_t body = table.size() - kCrcBytes;
        fl::table_detail::put32(table.data() + body, fl::crc32(table.data(), body));
    }
    Bytes pixels;
    const int status = decode(file, table, box, side, &pixels);
    if (status != fl::kOk && std::strcmp(fl::reason(status), "unknown status") == 0) std::abort();
    compare_whole(file, table, height, width);
    fl::CutRegion region;
    if (!fl::RegionCutter(cut_work).cut(file.data(), file.size(), table.data(), table.size(), box,
                                        region))
        std::free(region.bytes);
    return 0;
}
