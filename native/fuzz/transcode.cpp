// Fuzzes fl_transcode. What it writes is whole, and transcoding it again changes nothing: this
// shows that the bytes written stand for the tokens that were read.
#include <cstdlib>
#include <cstring>

#include "transcode/facts.hpp"

namespace {

fl::TranscodeWorkspace work;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 3) return 0;
    // The last byte chooses; behind EOI it belongs to nothing.
    const uint8_t choice = data[size - 1];
    const int pixels[] = {0, 8, 64, 500};
    const fl::TranscodeOptions options = {pixels[choice & 3], (choice & 4) != 0,
                                          1 + (choice >> 3 & 7)};
    fl::Facts first, second, checked;
    const int status = fl::transcode_file(data, size, options, work, first);
    const int whole = fl::check_file(data, size, work, checked);
    if (status == fl::kOk && whole != fl::kOk) std::abort();
    if (fl::is_corrupt(status) && !fl::is_corrupt(whole)) std::abort();
    if (status != fl::kOk) return 0;
    const fl::TranscodeOptions again = {options.interval_pixels, options.smallest, 1};
    if (fl::transcode_file(first.bytes, first.size, again, work, second)) std::abort();
    if (first.size != second.size || std::memcmp(first.bytes, second.bytes, first.size))
        std::abort();
    std::free(first.bytes);
    std::free(second.bytes);
    return 0;
}
