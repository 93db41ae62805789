// Packages as files: made, signed and checked without kaid.
#include "kaictl/command_line.h"
#include "kaictl/package.h"

namespace kai {

void Commands::define_packages() {
  using Asked = const Context&;
  CommandLine& line = line_;
  CLI::App* const package = command("package", "make, sign and check packages; needs no kaid", Action());
  package->require_subcommand(1);
  const auto below = [&](const std::string& name, const std::string& description, const Action& action) {
    return command_below(package, name, description, action);
  };
  auto* build = below("build", "list the files of a package in its SHA256SUMS, and pack it",
                      [&line](Asked context) { return package_build(context, line.path, line.archive); });
  build->add_option("DIR", line.path, "directory with manifest.json at its root")->required();
  // -o is every command's; here it may name the archive too, and each -o is told by what it says.
  const auto take_output = [&line](const std::vector<std::string>& values) {
    for (const std::string& value : values) (value == "text" || value == "json" ? line.output : line.archive) = value;
  };
  build->add_option_function<std::vector<std::string>>("-o", take_output, "the archive (ID-VERSION.tar.gz)")
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check([](const std::string& value) {
        const bool known = value == "text" || value == "json" || value.ends_with(".tar.gz") || value.ends_with(".tgz");
        return known ? std::string() : value + " does not end in .tar.gz";
      })
      ->type_name("FILE.tar.gz");
  auto* sign = below("sign", "sign a package with a key of minisign",
                     [&line](Asked context) { return package_sign(context, line.path, line.key); });
  sign->add_option("PATH", line.path, "directory, or .tar.gz of it, which is replaced")->required();
  sign->add_option("--secret-key", line.key, "made by minisign -G; its password: asked for, or KAI_MINISIGN_PASSWORD")
      ->required()
      ->type_name("FILE");
  auto* verify = below("verify", "check a package's signature, check sums and files",
                       [&line](Asked context) { return package_verify(context, line.path, line.key); });
  verify->add_option("PATH", line.path, "directory, or .tar.gz of it")->required();
  verify->add_option("--key", line.key, "minisign's public key: RW..., or the .pub file")
      ->required()
      ->type_name("PUBKEY|FILE");
}

}  // namespace kai
