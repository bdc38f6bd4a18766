// Fuzzes fl_decode_full. A file that is transcoded without loss gives the same pixels afterwards.
#include <cstdlib>
#include <vector>

#include "decode/decode.hpp"
#include "transcode/facts.hpp"

namespace {

fl::DecodeWorkspace work;
fl::TranscodeWorkspace transcode_work;

bool decode(const uint8_t* data, size_t size, std::vector<uint8_t>* pixels) {
    int height, width;
    {
        fl::BoxDecoder decoder(work);
        if (decoder.open(data, size) != fl::kOk) return false;
        height = decoder.frame().height;
        width = decoder.frame().width;
    }
    if (int64_t{height} * width > (1 << 22)) return false;  // sound, but slow here
    pixels->resize(size_t(height) * size_t(width) * 3);
    return fl::decode_full(work, data, size, height, width, pixels->data()) == fl::kOk;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 1) return 0;
    fl::simd_level() = data[size - 1] % 3 < fl::best_simd() ? data[size - 1] % 3 : fl::best_simd();
    std::vector<uint8_t> pixels, stored_pixels;
    if (!decode(data, size, &pixels)) return 0;
    fl::Facts facts;
    if (fl::transcode_file(data, size, {64, false, 1}, transcode_work, facts)) return 0;
    if (!decode(facts.bytes, facts.size, &stored_pixels)) std::abort();
    if (pixels != stored_pixels) std::abort();
    std::free(facts.bytes);
    return 0;
}
