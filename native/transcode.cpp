// The C interface of transcoding and checking. Thread-safe: each thread has working memory of its
// own.

#include "transcode.hpp"

#include <cstdint>
#include <cstdlib>

#include "check.hpp"

#define FL_EXPORT extern "C" __attribute__((visibility("default")))

FL_EXPORT int fl_check(const uint8_t* data, size_t size, fl::Facts* facts) {
    return fl::check(data, size, fl::scan_memory(), facts);
}

// On success facts->bytes holds facts->size bytes, which the caller gives to fl_free.
FL_EXPORT int fl_transcode(const uint8_t* data, size_t size, int interval_pixels, int smallest,
                           int orient, fl::Facts* facts) {
    const fl::TranscodeOptions options = {interval_pixels, smallest != 0, orient != 0};
    return fl::transcode_file(data, size, options, fl::scan_memory(), facts);
}

FL_EXPORT void fl_free(void* memory) { std::free(memory); }
