#include "supervisor/memory/memory_export.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/memory/dump_text.h"

using namespace kai;

namespace {

const DumpHeader kHeader{"calendarAgent", "2026-05-04T13:00:00.000Z", "sqlite"};

std::string header_line() {
  return R"({"format":"kai-memory/1","agentId":"calendarAgent","exportedAt":"2026-05-04T13:00:00.000Z","backend":"sqlite"})";
}

Fd memory_file(std::string_view text) {
  Fd fd(memfd_create("dump", MFD_CLOEXEC));
  REQUIRE(fd);
  REQUIRE(write_all(fd.get(), text));
  REQUIRE(lseek(fd.get(), 0, SEEK_SET) == 0);
  return fd;
}

std::string written(const std::vector<DumpLine>& lines) {
  const auto text = dump_text(kHeader, lines);
  REQUIRE_MESSAGE(text, text.error().message());
  return *text;
}

/// `lines` with a last line that fits them.
std::string closed(const std::vector<std::string>& lines, std::uint64_t entries) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  std::array<unsigned char, crypto_hash_sha256_BYTES> hash;
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(text.data()), text.size());
  std::array<char, 65> hex;
  sodium_bin2hex(hex.data(), hex.size(), hash.data(), hash.size());
  return text + R"({"entries":)" + std::to_string(entries) + R"(,"checksum":")" + hex.data() + "\"}\n";
}

std::string refusal(std::string_view text) {
  const auto reader = MemoryExportReader::open(memory_file(text));
  REQUIRE_FALSE(reader);
  return reader.error().message();
}

bool says(const std::string& message, std::string_view part) {
  return message.find(part) != std::string::npos;
}

std::vector<DumpLine> read(std::string_view text) {
  auto reader = MemoryExportReader::open(memory_file(text));
  REQUIRE_MESSAGE(reader, reader.error().message());
  auto lines = remaining(*reader);
  REQUIRE_MESSAGE(lines, lines.error().message());
  return *lines;
}

/// What is refused of one line in the place of an entry.
std::string line_refusal(const std::string& line) {
  const std::string message = refusal(closed({header_line(), line}, 1));
  CHECK(says(message, "line 2:"));
  return message;
}

std::vector<DumpLine> indexed_db() {
  return {IdbDumpDatabase{"calendar", 3},
          IdbDumpStore{1, "events", "\"id\"", true, 42},
          IdbDumpIndex{2, "byDay", R"(["year","day"])", false, false},
          IdbDumpIndex{3, std::string("\xed\xa0\x80", 3), "null", true, true},
          IdbDumpRecord{std::string("\0\x10k", 3), std::string("\xff\0", 2), {{2, "a"}, {3, ""}, {3, "b"}}},
          IdbDumpRecord{"key", "", {}},
          IdbDumpStore{4, "", "null", false, 1},
          IdbDumpDatabase{"other", 1}};
}

}  // namespace

TEST_CASE("entries are lines, and JSON is what the agent wrote, byte for byte") {
  const std::string text = written({DumpEntry{"a \"key\"", R"( {"x": [1.50, 1e2, "\u0041"] } )", false, 7, 86'000},
                                    DumpEntry{"b", std::string("\0\xff", 2), true, 8, std::nullopt}});
  const std::string lines = header_line() + "\n" +
                            R"({"key":"a \"key\"","value": {"x": [1.50, 1e2, "\u0041"] } ,"version":7,"ttlMs":86000})"
                            "\n"
                            R"({"key":"b","valueBase64":"AP8=","version":8})"
                            "\n";
  CHECK(text.starts_with(lines));
  CHECK(text == closed({header_line(),
                        R"({"key":"a \"key\"","value": {"x": [1.50, 1e2, "\u0041"] } ,"version":7,"ttlMs":86000})",
                        R"({"key":"b","valueBase64":"AP8=","version":8})"},
                       2));
  const auto back = read(text);
  REQUIRE(back.size() == 2);
  const auto& first = std::get<DumpEntry>(back[0]);
  CHECK(first.key == "a \"key\"");
  CHECK(first.value == R"( {"x": [1.50, 1e2, "\u0041"] } )");
  CHECK_FALSE(first.binary);
  CHECK(first.version == 7);
  CHECK(first.ttl_ms == 86'000);
  const auto& second = std::get<DumpEntry>(back[1]);
  CHECK(second.value == std::string("\0\xff", 2));
  CHECK(second.binary);
  CHECK_FALSE(second.ttl_ms);
}

TEST_CASE("JSON that does not go on a line comes back the same too") {
  const std::string deepest = std::string(128, '[') + std::string(128, ']');
  for (const std::string& value :
       {std::string("{\n  \"a\": 1\n}"), std::string("\r\n1\t"), deepest, std::string("\"\x7f\"")}) {
    const std::string text = written({DumpEntry{"k", value, false, 1, {}}});
    const auto back = read(text);
    CHECK(std::get<DumpEntry>(back.at(0)).value == value);
    CHECK_FALSE(std::get<DumpEntry>(back.at(0)).binary);
  }
}

TEST_CASE("an empty memory is a header and a last line") {
  const std::string text = written({});
  CHECK(text == closed({header_line()}, 0));
  auto reader = MemoryExportReader::open(memory_file(text));
  REQUIRE(reader);
  CHECK(reader->header().agent_id == "calendarAgent");
  CHECK(reader->header().exported_at == "2026-05-04T13:00:00.000Z");
  CHECK(reader->header().backend == "sqlite");
  CHECK(reader->total().entries == 0);
  CHECK(reader->total().bytes == text.size());
  CHECK_FALSE(*reader->next());
  CHECK_FALSE(*reader->next());
}

TEST_CASE("IndexedDB's databases come back as they were") {
  std::vector<DumpLine> lines = {DumpEntry{"k", "1", false, 1, {}}};
  for (const DumpLine& line : indexed_db()) lines.push_back(line);
  const std::string text = written(lines);
  const auto back = read(text);
  REQUIRE(back.size() == lines.size());
  CHECK(written(back) == text);
  const auto& record = std::get<IdbDumpRecord>(back[5]);
  CHECK(record.key == std::string("\0\x10k", 3));
  CHECK(record.value == std::string("\xff\0", 2));
  CHECK(record.index_keys == std::get<IdbDumpRecord>(lines[5]).index_keys);
  CHECK(std::get<IdbDumpStore>(back[2]).key_path_json == "\"id\"");
  CHECK(std::get<IdbDumpIndex>(back[4]).name == std::string("\xed\xa0\x80", 3));
  CHECK(std::get<IdbDumpIndex>(back[4]).unique);
  CHECK(says(text, R"("entries":3)"));
}

TEST_CASE("larger than any buffer, with the longest values") {
  std::vector<DumpLine> lines;
  for (std::uint64_t at = 1; at <= 8; ++at) {
    lines.push_back(DumpEntry{
        std::string(510, 'k') + std::to_string(at), "\"" + std::string((1 << 20) - 2, 'v') + "\"", false, at, {}});
    lines.push_back(DumpEntry{std::string(510, 'b') + std::to_string(at), std::string(1 << 20, '\xee'), true, at, {}});
  }
  for (std::uint64_t at = 1; at <= 20'000; ++at)
    lines.push_back(DumpEntry{"n" + std::to_string(at), "1", false, at, {}});
  const std::string text = written(lines);
  const auto back = read(text);
  REQUIRE(back.size() == lines.size());
  for (std::size_t at = 0; at < lines.size(); ++at) {
    REQUIRE(std::get<DumpEntry>(back[at]).value == std::get<DumpEntry>(lines[at]).value);
    REQUIRE(std::get<DumpEntry>(back[at]).key == std::get<DumpEntry>(lines[at]).key);
  }
}

TEST_CASE("it begins at the file's own position") {
  const Fd file(memfd_create("dump", MFD_CLOEXEC));
  REQUIRE(write_all(file.get(), "before\n"));
  Fd own(dup(file.get()));
  auto writer = MemoryExportWriter::begin(std::move(own), kHeader);
  REQUIRE(writer);
  REQUIRE(writer->add(DumpEntry{"k", "1", false, 1, {}}));
  const auto total = writer->finish();
  REQUIRE(total);
  CHECK(total->entries == 1);
  CHECK(lseek(file.get(), 0, SEEK_END) == static_cast<off_t>(7 + total->bytes));
  REQUIRE(lseek(file.get(), 7, SEEK_SET) == 7);
  auto reader = MemoryExportReader::open(Fd(dup(file.get())));
  REQUIRE_MESSAGE(reader, reader.error().message());
  CHECK(reader->total().bytes == total->bytes);
}

TEST_CASE("what is damaged in the store is not exported") {
  const auto not_json = dump_text(kHeader, {DumpEntry{"k", "1,\"version\":9", false, 1, {}}});
  REQUIRE_FALSE(not_json);
  CHECK(says(not_json.error().message(), "the value of k in the store is no JSON"));
  CHECK_FALSE(dump_text(kHeader, {IdbDumpDatabase{"d", 1}, IdbDumpStore{1, "s", "", false, 1}}));
  CHECK_FALSE(dump_text(kHeader, {IdbDumpDatabase{"d", 1}, IdbDumpStore{1, "s", "null", false, 1},
                                  IdbDumpRecord{"k", std::string(4 << 20, 'v'), {}}}));
}

TEST_CASE("an export that cannot be written is an error at the latest at its end") {
  const Fd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  REQUIRE(full);
  auto writer = MemoryExportWriter::begin(Fd(dup(full.get())), kHeader);
  REQUIRE(writer);
  REQUIRE(writer->add(DumpEntry{"k", "1", false, 1, {}}));
  const auto total = writer->finish();
  REQUIRE_FALSE(total);
  CHECK(total.error().error_number == ENOSPC);
}

TEST_CASE("a file that was cut off anywhere is refused with its line") {
  const std::string text = written({DumpEntry{"a", "1", false, 1, {}}, DumpEntry{"b", "[2,3]", false, 2, 5}});
  for (std::size_t length = 0; length < text.size(); ++length) {
    const std::string message = refusal(std::string_view(text).substr(0, length));
    CHECK(says(message, "line "));
  }
  CHECK(says(refusal(""), "line 1: the file is empty"));
  CHECK(says(refusal(header_line() + "\n"), "line 2: it should be here"));
  CHECK(says(refusal(text.substr(0, text.size() - 1)), "line 4: the file ends in the middle of it"));
  CHECK(says(refusal(text + "\n"), "line 5: the file goes on"));
  CHECK(says(refusal(text + text), "line 5: the file goes on"));
}

TEST_CASE("no changed byte passes") {
  std::vector<DumpLine> lines = {DumpEntry{"a", "1", false, 1, {}}, DumpEntry{"b", "x", true, 2, 5}};
  for (const DumpLine& line : indexed_db()) lines.push_back(line);
  const std::string text = written(lines);
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const char byte : {'0', 'A', '"', '\n', '\0', '\xff', ' '}) {
      std::string changed = text;
      if (changed[at] == byte) continue;
      changed[at] = byte;
      const auto reader = MemoryExportReader::open(memory_file(changed));
      REQUIRE_FALSE(reader);
      REQUIRE(says(reader.error().message(), "line "));
    }
  }
}

TEST_CASE("lines that were taken out, moved or made up are refused") {
  const std::string a = R"({"key":"a","value":1,"version":1})";
  const std::string b = R"({"key":"b","value":1,"version":2})";
  const std::string text = closed({header_line(), a, b}, 2);
  const std::string last = text.substr(text.rfind("{\"entries\""));
  CHECK(says(refusal(header_line() + "\n" + a + "\n" + last), "2 entries, and there are 1"));
  CHECK(says(refusal(header_line() + "\n" + b + "\n" + a + "\n" + last), "its checksum is not that"));
  CHECK(says(refusal(a + "\n" + last), "not the beginning"));
  CHECK(says(refusal(closed({header_line(), a}, 2)), "2 entries, and there are 1"));
}

TEST_CASE("a header of another format is refused with what it is") {
  CHECK(says(refusal(closed({R"({"format":"kai-memory/2","agentId":"a","exportedAt":"x","backend":"redis"})"}, 0)),
             "another version of kaid"));
  CHECK(says(refusal(closed({R"({"format":"kai-memory/1","agentId":"a","exportedAt":"x"})"}, 0)), "backend"));
  CHECK(
      says(refusal(closed({R"({"format":"kai-memory/1","agentId":1,"exportedAt":"x","backend":"b"})"}, 0)), "agentId"));
  CHECK(says(refusal("hello\n"), "not the beginning"));
  CHECK(says(refusal("{}\n"), "not the beginning"));
  CHECK(says(refusal("[]\n"), "not the beginning"));
  CHECK(says(refusal(std::string(1'000, '\0')), "line 1"));
}

TEST_CASE("what no export has is refused with what is wrong") {
  CHECK(says(line_refusal(R"({"key":"","value":1,"version":1})"), "key is not"));
  CHECK(says(line_refusal(R"({"key":"a\u0000","value":1,"version":1})"), "key is not"));
  CHECK(says(line_refusal(R"({"key":"\ud800","value":1,"version":1})"), "key is not"));
  CHECK(says(line_refusal(R"({"key":")" + std::string(513, 'k') + R"(","value":1,"version":1})"), "key is not"));
  CHECK(says(line_refusal(R"({"key":1,"value":1,"version":1})"), "key is not"));
  CHECK(says(line_refusal(R"({"key":"k","version":1})"), "value"));
  CHECK(says(line_refusal(R"({"key":"k","value":1})"), "version"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":0})"), "version"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":-1})"), "version"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":1e3})"), "version"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":18446744073709551616})"), "version"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":1,"ttlMs":0})"), "ttlMs"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":1,"ttlMs":"1"})"), "ttlMs"));
  CHECK(
      says(line_refusal(R"({"key":"k","value":1,"valueBase64":"","version":1})"), "the member value does not belong"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"value":2,"version":1})"), "the member value does not belong"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":1,"extra":1})"), "the member extra does not belong"));
  CHECK(says(line_refusal(R"({"key":"k","value":1,"version":1,"":1})"), "does not belong"));
  CHECK(says(line_refusal(R"({"key":"k","valueBase64":"=","version":1})"), "no base64"));
  CHECK(says(line_refusal(R"({"key":"k","valueJsonBase64":"e30","version":1})"), "not written as it should be"));
  CHECK(says(line_refusal(R"({"key":"k","valueJsonBase64":"e3s=","version":1})"), "value is no JSON"));
  CHECK(says(line_refusal(R"({"key":"k","value":")" + std::string(1 << 20, 'v') + R"(","version":1})"), "1 MiB"));
  CHECK(says(line_refusal(R"({"value":1,"key":"k","version":1})"), "no line of exported memory"));
  CHECK(says(line_refusal("{}"), "no line of exported memory"));
  CHECK(says(line_refusal(R"({"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1})"), "no line of exported memory"));
  CHECK(says(line_refusal("[1]"), "no JSON object"));
  CHECK(says(line_refusal(""), "no JSON object"));
  CHECK(
      says(line_refusal(R"({"key":"k","value":)" + std::string(200, '[') + std::string(200, ']') + R"(,"version":1})"),
           "no JSON object"));
  CHECK(says(refusal(closed({header_line(), std::string((4 << 20) + 1, ' ')}, 0)), "line 2: it is longer than 4 MiB"));
}

TEST_CASE("IndexedDB's lines stand below what they belong to") {
  const std::string store = R"({"store":{"id":1,"name":"s","keyPath":null,"autoIncrement":false,"nextKey":1}})";
  const std::string index = R"({"index":{"id":2,"name":"i","keyPath":"x","unique":false,"multiEntry":false}})";
  const std::string record = R"({"record":{"key":"AA==","value":"","indexKeys":[]}})";
  const std::string database = R"({"database":{"name":"d","version":1}})";
  const std::string entry = R"({"key":"k","value":1,"version":1})";
  CHECK(
      read(closed({header_line(), entry, database, store, index, record, record, store, record, database}, 4)).size() ==
      9);
  for (const std::string& line : {store, index, record}) CHECK(says(line_refusal(line), "does not belong below"));
  CHECK(says(refusal(closed({header_line(), database, index}, 0)), "line 3: it does not belong below"));
  CHECK(says(refusal(closed({header_line(), database, record}, 0)), "line 3: it does not belong below"));
  CHECK(says(refusal(closed({header_line(), database, entry}, 0)), "line 3: it does not belong below"));
  CHECK(says(refusal(closed({header_line(), database, store, record, index}, 0)), "line 5: it does not belong below"));
}

TEST_CASE("IndexedDB's lines are checked too") {
  const std::string database = R"({"database":{"name":"d","version":1}})";
  const std::string store = R"({"store":{"id":1,"name":"s","keyPath":null,"autoIncrement":false,"nextKey":1}})";
  const auto refused = [&](const std::string& line) {
    const std::string message = refusal(closed({header_line(), database, store, line}, 0));
    CHECK(says(message, "line 4:"));
    return message;
  };
  CHECK(says(refused(R"({"database":{"name":"d","version":0}})"), "version"));
  CHECK(says(refused(R"({"database":{"version":1}})"), "name"));
  CHECK(says(refused(R"({"database":[]})"), "no line of exported memory"));
  CHECK(says(refused(R"({"database":{"name":"d","version":1},"store":1})"), "the member store does not belong"));
  CHECK(says(refused(R"({"store":{"id":0,"name":"s","keyPath":null,"autoIncrement":false,"nextKey":1}})"), "id"));
  CHECK(says(refused(R"({"store":{"id":4294967296,"name":"s","keyPath":null,"autoIncrement":false,"nextKey":1}})"),
             "id"));
  CHECK(
      says(refused(R"({"store":{"id":1,"name":"s","keyPath":null,"autoIncrement":1,"nextKey":1}})"), "autoIncrement"));
  CHECK(says(refused(R"({"store":{"id":1,"name":"s","autoIncrement":true,"nextKey":1}})"), "keyPath"));
  CHECK(says(refused(R"({"record":{"key":"AA==","value":""}})"), "indexKeys"));
  CHECK(says(refused(R"({"record":{"key":"AA==","indexKeys":[]}})"), "value"));
  for (const std::string keys : {"1", "{}", "[1]", "[[]]", "[[1]]", R"([[1,"AA==",2]])", R"([["1","AA=="]])",
                                 R"([[1,"A"]])", R"([[1,2]])", R"([[1,"AA=="],1])", R"([{"1":"AA=="}])"}) {
    CHECK(says(refused(R"({"record":{"key":"AA==","value":"","indexKeys":)" + keys + "}}"), "indexKeys"));
  }
}

TEST_CASE("a file that changes between the two readings is an error, and so is one that shrinks") {
  const std::string text = written({DumpEntry{"a", "1", false, 1, {}}, DumpEntry{"b", "2", false, 2, {}}});
  const std::string other = written({DumpEntry{"a", "1", false, 1, {}}, DumpEntry{"b", "3", false, 2, {}}});
  REQUIRE(other.size() == text.size());
  const Fd file = memory_file(text);
  auto reader = MemoryExportReader::open(Fd(dup(file.get())));
  REQUIRE(reader);
  SUBCASE("to another whole export") {
    REQUIRE(pwrite(file.get(), other.data(), other.size(), 0) == static_cast<ssize_t>(other.size()));
    const auto lines = remaining(*reader);
    REQUIRE_FALSE(lines);
    CHECK(says(lines.error().message(), "while it was read"));
  }
  SUBCASE("to nothing") {
    REQUIRE(ftruncate(file.get(), 0) == 0);
    CHECK_FALSE(remaining(*reader));
  }
}

TEST_CASE("only a regular file is read") {
  auto pipe = make_pipe();
  REQUIRE(pipe);
  const auto reader = MemoryExportReader::open(std::move(pipe->first));
  REQUIRE_FALSE(reader);
  CHECK(says(reader.error().message(), "no regular file"));
  CHECK_FALSE(MemoryExportReader::open(Fd(open("/", O_RDONLY | O_CLOEXEC))));
}
