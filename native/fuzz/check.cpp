// Fuzzes fl_check: any bytes give facts or a reason.
#include <cstdlib>
#include <cstring>

#include "transcode/facts.hpp"

namespace {

fl::TranscodeWorkspace work;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    fl::Facts facts;
    const int status = fl::check_file(data, size, work, facts);
    if (status != facts.status || std::strlen(facts.reason) == 0) std::abort();
    if (status == fl::kOk && (facts.height < 1 || facts.width < 1)) std::abort();
    return 0;
}
