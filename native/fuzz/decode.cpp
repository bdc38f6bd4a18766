// Fuzzes fl_decode_boxes: the last bytes choose box, window, size, flip and instructions. What
// earlier images left in the working memory changes nothing, and a file that is transcoded without
// loss gives the same pixels afterwards.
#include "decode/decode.hpp"

#include <cstdlib>
#include <cstring>
#include <vector>

#include "transcode/facts.hpp"

namespace {

constexpr size_t kChoice = 10;
constexpr int kSizes[] = {1, 2, 7, 16, 33, 64, 96, 224};
constexpr int kCanary = 64;

fl::DecodeWorkspace shared_work;
fl::TranscodeWorkspace transcode_work;

// Pixels between canaries.
int decode(fl::DecodeWorkspace& work, const uint8_t* data, size_t size, const fl::Box& box,
           const fl::Window& window, int side, bool flip, std::vector<uint8_t>* pixels) {
    const size_t bytes = size_t(side) * size_t(side) * 3;
    pixels->assign(bytes + 2 * kCanary, 0xA5);
    fl::Spent spent;
    const int status = fl::decode_box(work, data, size, nullptr, 0, box, window, side, flip,
                                      pixels->data() + kCanary, spent);
    for (size_t i = 0; i < kCanary; ++i) {
        if ((*pixels)[i] != 0xA5 || (*pixels)[kCanary + bytes + i] != 0xA5) std::abort();
    }
    return status;
}

// A box inside the picture, except one time in eight.
fl::Box choose_box(const uint8_t* choice, const uint8_t* data, size_t size) {
    auto word = [&](int i) { return choice[i] << 8 | choice[i + 1]; };
    fl::BoxDecoder decoder(shared_work);
    fl::Box box = {word(0), word(2), word(4), word(6)};
    if ((choice[8] & 7) == 0 || decoder.open(data, size) != fl::kOk) return box;
    const int height = decoder.frame().height, width = decoder.frame().width;
    box.top %= height;
    box.left %= width;
    box.height = 1 + box.height % (height - box.top);
    box.width = 1 + box.width % (width - box.left);
    return box;
}

// All of the box one time in four, else a part of it, a fraction of a pixel small at times.
fl::Window choose_window(const uint8_t* choice, const fl::Box& box) {
    const int kind = choice[8] >> 3;
    if (kind % 4 == 0) return fl::all_of(box);
    const double share = (kind + 1) / 33.0, rest = 1 - share;
    return {box.height * rest * choice[1] / 255, box.width * rest * choice[3] / 255,
            box.height * share * (choice[5] + 1) / 256, box.width * share * (choice[7] + 1) / 256};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < kChoice) return 0;
    const uint8_t* const choice = data + size - kChoice;
    fl::simd_level() = choice[9] % 3 < fl::best_simd() ? choice[9] % 3 : fl::best_simd();
    const bool flip = choice[9] & 2;
    const int side = kSizes[choice[9] >> 2 & 7];
    const fl::Box box = choose_box(choice, data, size);
    if (int64_t{box.height} * box.width > (1 << 22)) return 0;  // sound, but slow here
    const fl::Window window = choose_window(choice, box);
    std::vector<uint8_t> pixels, again;
    const int status = decode(shared_work, data, size, box, window, side, flip, &pixels);
    if (choice[9] & 32) {
        auto* fresh = new fl::DecodeWorkspace();
        if (decode(*fresh, data, size, box, window, side, flip, &again) != status) std::abort();
        delete fresh;
        if (status == fl::kOk && pixels != again) std::abort();
    }
    if (status != fl::kOk) return 0;

    fl::Facts facts;
    if (fl::transcode_file(data, size, {64, false, 1}, transcode_work, facts)) return 0;
    if (decode(shared_work, facts.bytes, facts.size, box, window, side, flip, &again)) std::abort();
    if (pixels != again) std::abort();
    std::free(facts.bytes);
    return 0;
}
