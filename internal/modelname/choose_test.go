package modelname_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/inferd-go/inferd/internal/modelname"
)

// Each row has the request (a quantisation, a file as "/PATH", or empty for the default), the listing of
// a repository, and the chosen files: the parts, then "+" and the projector if there is one. If the last
// text begins with "!", it is part of the error instead.
func TestChoose(t *testing.T) {
	for name, test := range map[string]struct{ asked, files, want string }{
		"the usual repository":                             {"", "README.md config.json m-Q2_K.gguf m-Q4_K_M.gguf m-Q8_0.gguf", "m-Q4_K_M.gguf"},
		"no Q4_K_M, so Q8_0":                               {"", "m-Q2_K.gguf m-Q8_0.gguf m-F16.gguf", "m-Q8_0.gguf"},
		"lower case":                                       {"", "m-q4_k_m.gguf m-q8_0.gguf", "m-q4_k_m.gguf"},
		"dots before the quantisation":                     {"", "m.Q4_K_M.gguf m.Q5_K_M.gguf", "m.Q4_K_M.gguf"},
		"underscore before the quantisation":               {"", "m_Q4_K_M.gguf m_Q5_K_M.gguf", "m_Q4_K_M.gguf"},
		"an upper-case extension":                          {"", "m-Q4_K_M.GGUF", "m-Q4_K_M.GGUF"},
		"one file without a quantisation":                  {"", "README.md model.gguf", "model.gguf"},
		"one file of another quantisation":                 {"", "m-IQ2_XXS.gguf", "m-IQ2_XXS.gguf"},
		"one F16 file beside its projector":                {"", "m-F16.gguf mmproj-F16.gguf", "m-F16.gguf + mmproj-F16.gguf"},
		"neither default, so the choices are listed":       {"", "m-Q5_K_M.gguf m-IQ4_XS.gguf m-BF16.gguf", "! neither Q4_K_M nor Q8_0: choose one of BF16, IQ4_XS, Q5_K_M as in hf:O/R:QUANT"},
		"UD only, so it counts as Q4_K_M by its last word": {"", "m-UD-Q4_K_M.gguf m-UD-Q2_K_XL.gguf", "m-UD-Q4_K_M.gguf"},
		"UD beside plain":                                  {"", "m-UD-Q4_K_M.gguf m-Q4_K_M.gguf", "m-Q4_K_M.gguf"},
		"UD XL is not Q4_K_M":                              {"", "m-UD-Q4_K_XL.gguf m-UD-Q6_K_XL.gguf", "! neither Q4_K_M nor Q8_0: choose one of UD-Q4_K_XL, UD-Q6_K_XL"},
		"two models of one default":                        {"", "a-Q4_K_M.gguf b-Q4_K_M.gguf", "! several such models: choose one of a-Q4_K_M.gguf, b-Q4_K_M.gguf as in hf:O/R/FILE.gguf"},
		"two models without a quantisation":                {"", "a.gguf b.gguf", "! several such models: choose one of a.gguf, b.gguf"},
		"one of two models has the default":                {"", "a-Q4_K_M.gguf b-Q8_0.gguf", "a-Q4_K_M.gguf"},
		"a number is no quantisation":                      {"", "m-7b.gguf m-13b.gguf", "! several such models"},
		"imat at the end hides the quantisation":           {"", "m-Q4_K_M-imat.gguf m-Q8_0-imat.gguf", "! several such models"},
		"the quantisation is only in the folder":           {"", "Q4_K_M/m.gguf Q8_0/m.gguf", "Q4_K_M/m.gguf"},
		"the folder contradicts the name":                  {"", "Q4_K_M/m-Q6_K.gguf m-Q8_0.gguf", "m-Q8_0.gguf"},
		"a quantisation":                                   {"Q8_0", "m-Q4_K_M.gguf m-Q8_0.gguf", "m-Q8_0.gguf"},
		"a quantisation in lower case":                     {"iq4_xs", "m-IQ4_XS.gguf m-Q8_0.gguf", "m-IQ4_XS.gguf"},
		"with its prefix":                                  {"UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf"},
		"without its prefix":                               {"Q4_K_XL", "m-UD-Q4_K_XL.gguf m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf"},
		"plain wins over a prefix":                         {"Q8_0", "m-UD-Q8_0.gguf m-Q8_0.gguf", "m-Q8_0.gguf"},
		"half a type does not match":                       {"K_M", "m-Q4_K_M.gguf", "! has no K_M: it has Q4_K_M"},
		"the end of a word does not match":                 {"4_K_M", "m-Q4_K_M.gguf", "! has no 4_K_M: it has Q4_K_M"},
		"the beginning of a word does not match":           {"Q4", "m-Q4_K_M.gguf m-Q4_0.gguf", "! has no Q4: it has Q4_0, Q4_K_M"},
		"Q4_K is not Q4_K_M":                               {"Q4_K", "m-Q4_K_M.gguf m-Q4_K_S.gguf", "! has no Q4_K: it has Q4_K_M, Q4_K_S"},
		"Q8_0 is not IQ8_0":                                {"Q8_0", "m-IQ8_0.gguf", "! has no Q8_0: it has IQ8_0"},
		"F16 is not BF16":                                  {"F16", "m-BF16.gguf", "! has no F16: it has BF16"},
		"F16 beside BF16":                                  {"F16", "m-BF16.gguf m-F16.gguf", "m-F16.gguf"},
		"an unknown quantisation is answered with a list":  {"Q9_Z", "m-Q4_K_M.gguf m.gguf m-F32.gguf", "! has no Q9_Z: it has F32, Q4_K_M, m.gguf"},
		"a word that is no type of llama.cpp":              {"it-qat", "m-it-qat.gguf m-it.gguf", "m-it-qat.gguf"},
		"an odd type":                                      {"q4", "Phi-3-mini-4k-instruct-q4.gguf Phi-3-mini-4k-instruct-fp16.gguf", "Phi-3-mini-4k-instruct-q4.gguf"},
		"fp16":                                             {"fp16", "Phi-3-mini-4k-instruct-q4.gguf Phi-3-mini-4k-instruct-fp16.gguf", "Phi-3-mini-4k-instruct-fp16.gguf"},
		"a mixture type":                                   {"MXFP4_MOE", "m-MXFP4_MOE.gguf m-Q8_0.gguf", "m-MXFP4_MOE.gguf"},
		"packed rows":                                      {"Q4_0_4_4", "m-Q4_0_4_4.gguf m-Q4_0.gguf", "m-Q4_0_4_4.gguf"},
		"ternary":                                          {"TQ1_0", "m-TQ1_0.gguf m-Q4_0.gguf", "m-TQ1_0.gguf"},
		"the same quantisation in two folders":             {"Q4_K_M", "a/m-Q4_K_M.gguf b/m-Q4_K_M.gguf", "! several such models: choose one of a/m-Q4_K_M.gguf, b/m-Q4_K_M.gguf"},
		"a quantisation in a folder's name":                {"BF16", "BF16/m-BF16.gguf m-Q4_K_M.gguf", "BF16/m-BF16.gguf"},
		"a folder with a prefix":                           {"Q4_K_M", "m-Q4_K_M/m.gguf m-Q8_0/m.gguf", "m-Q4_K_M/m.gguf"},
		"an importance matrix":                             {"", "imatrix.gguf m-Q4_K_M.gguf m-imatrix-Q4_K_M.gguf", "m-Q4_K_M.gguf"},
		"imatrix as a suffix, and mmproj":                  {"", "m.imatrix.gguf mmproj-m-Q8_0.gguf m-Q8_0.gguf", "m-Q8_0.gguf + mmproj-m-Q8_0.gguf"},
		"draft heads":                                      {"Q8_0", "mtp-m-Q8_0.gguf eagle3-m-Q8_0.gguf dflash-m-Q8_0.gguf dspark-m-Q8_0.gguf m-Q8_0.gguf", "m-Q8_0.gguf"},
		"draft heads in upper case":                        {"", "MTP-m-Q4_K_M.gguf m-Q4_K_M.gguf", "m-Q4_K_M.gguf"},
		"draft heads in a folder":                          {"Q8_0", "MTP/m-Q8_0.gguf m-Q8_0.gguf", "m-Q8_0.gguf"},
		"a draft head in the middle of a name":             {"", "m-mtp-Q4_K_M.gguf m-Q8_0.gguf", "m-Q8_0.gguf"},
		"a model whose name has mtp at its end":            {"", "m-MTP.gguf", "m-MTP.gguf"},
		"a name that only contains the letters":            {"", "smtp-helper-Q4_K_M.gguf", "smtp-helper-Q4_K_M.gguf"},
		"only a projector":                                 {"", "mmproj-F16.gguf", "! no model among its GGUF files, only mmproj-F16.gguf"},
		"a projector by its quantisation":                  {"F16", "mmproj-F16.gguf m-Q4_K_M.gguf", "! has no F16: it has Q4_K_M"},
		"an empty repository":                              {"", "", "! has no GGUF file"},
		"no GGUF":                                          {"", "README.md tokenizer.json", "! has no GGUF file"},
		"weights for other programs":                       {"", "model.safetensors", "! has no GGUF file: it has weights for other programs (.safetensors)"},
		"a file called .gguf":                              {"", ".gguf", "! has no GGUF file"},
		"a split model":                                    {"", "m-Q4_K_M-00001-of-00003.gguf m-Q4_K_M-00002-of-00003.gguf m-Q4_K_M-00003-of-00003.gguf", "m-Q4_K_M-00001-of-00003.gguf m-Q4_K_M-00002-of-00003.gguf m-Q4_K_M-00003-of-00003.gguf"},
		"a split model, listed backwards":                  {"Q4_K_M", "m-Q4_K_M-00003-of-00003.gguf m-Q4_K_M-00002-of-00003.gguf m-Q4_K_M-00001-of-00003.gguf", "m-Q4_K_M-00001-of-00003.gguf m-Q4_K_M-00002-of-00003.gguf m-Q4_K_M-00003-of-00003.gguf"},
		"a split model in a folder":                        {"", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf Q4_K_M/m-Q4_K_M-00002-of-00002.gguf"},
		"a split model whose folder has the quantisation":  {"Q4_K_M", "Q4_K_M/m-00001-of-00002.gguf Q4_K_M/m-00002-of-00002.gguf Q8_0/m-00001-of-00002.gguf Q8_0/m-00002-of-00002.gguf", "Q4_K_M/m-00001-of-00002.gguf Q4_K_M/m-00002-of-00002.gguf"},
		"a split model of one part":                        {"", "m-Q4_K_M-00001-of-00001.gguf", "m-Q4_K_M-00001-of-00001.gguf"},
		"a missing part":                                   {"", "m-Q4_K_M-00001-of-00003.gguf m-Q4_K_M-00003-of-00003.gguf", "! is incomplete: the repository lacks m-Q4_K_M-00002-of-00003.gguf"},
		"the first part is missing":                        {"", "m-Q4_K_M-00002-of-00003.gguf m-Q4_K_M-00003-of-00003.gguf", "! lacks m-Q4_K_M-00001-of-00003.gguf"},
		"many missing parts":                               {"", "m-Q4_K_M-00001-of-00009.gguf", "! lacks m-Q4_K_M-00002-of-00009.gguf, m-Q4_K_M-00003-of-00009.gguf, m-Q4_K_M-00004-of-00009.gguf, m-Q4_K_M-00005-of-00009.gguf, m-Q4_K_M-00006-of-00009.gguf and 3 more"},
		"the parts lie in two folders":                     {"", "a/m-Q8_0-00001-of-00002.gguf b/m-Q8_0-00002-of-00002.gguf", "! several such models"},
		"the parts have two bases":                         {"Q8_0", "m-Q8_0-00001-of-00002.gguf n-Q8_0-00002-of-00002.gguf", "! several such models"},
		"the parts have two counts":                        {"Q8_0", "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00003.gguf", "! several such models"},
		"a part too many":                                  {"", "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00002.gguf m-Q8_0-00003-of-00002.gguf", "! has 3 files for 2 parts"},
		"parts of nothing":                                 {"", "m-Q8_0-00000-of-00000.gguf", "m-Q8_0-00000-of-00000.gguf"},
		"an incomplete default is not replaced by another quantisation": {"", "m-Q4_K_M-00001-of-00002.gguf m-Q8_0.gguf", "! is incomplete"},
		"too many parts":                             {"", "m-Q8_0-00001-of-00513.gguf", "! has 513 parts: at most 512"},
		"a split model and a whole one":              {"Q4_K_M", "m-Q4_K_M-00001-of-00002.gguf m-Q4_K_M-00002-of-00002.gguf m-Q4_K_M.gguf", "! several such models"},
		"split Q4_K_M is chosen before a whole Q8_0": {"", "m-Q4_K_M-00001-of-00002.gguf m-Q4_K_M-00002-of-00002.gguf m-Q8_0.gguf", "m-Q4_K_M-00001-of-00002.gguf m-Q4_K_M-00002-of-00002.gguf"},
		"a file":                                     {"/m-Q2_K.gguf", "m-Q4_K_M.gguf m-Q2_K.gguf", "m-Q2_K.gguf"},
		"a file in a folder":                         {"/a/m.gguf", "m.gguf a/m.gguf", "a/m.gguf"},
		"a projector as a file":                      {"/mmproj-F16.gguf", "m-Q4_K_M.gguf mmproj-F16.gguf", "mmproj-F16.gguf"},
		"a part means all":                           {"/m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf m-Q8_0-00002-of-00002.gguf"},
		"a part of an incomplete split":              {"/m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "! lacks m-Q8_0-00001-of-00002.gguf"},
		"a file in another case":                     {"/M.gguf", "m.gguf n.gguf", "! no file M.gguf: did you mean m.gguf?"},
		"a file in another folder":                   {"/m.gguf", "a/m.gguf", "! no file m.gguf: did you mean a/m.gguf?"},
		"a file that is not there":                   {"/x.gguf", "m.gguf n.gguf", "! no file x.gguf: it has m.gguf, n.gguf"},
		"a file of a repository without GGUF":        {"/x.gguf", "x.safetensors", "! has no GGUF file"},
		"the projector with the nearest bits":        {"", "m-Q8_0.gguf mmproj-F32.gguf mmproj-Q8_0.gguf mmproj-F16.gguf", "m-Q8_0.gguf + mmproj-Q8_0.gguf"},
		"F16 before BF16":                            {"", "m-Q4_K_M.gguf mmproj-BF16.gguf mmproj-F16.gguf mmproj-F32.gguf", "m-Q4_K_M.gguf + mmproj-F16.gguf"},
		"the projector of the folder":                {"/a/m-Q4_K_M.gguf", "a/m-Q4_K_M.gguf a/mmproj-F32.gguf mmproj-F16.gguf", "a/m-Q4_K_M.gguf + a/mmproj-F32.gguf"},
		"the projector of the folder above":          {"/a/b/m-Q4_K_M.gguf", "a/b/m-Q4_K_M.gguf a/mmproj-F32.gguf mmproj-F16.gguf", "a/b/m-Q4_K_M.gguf + a/mmproj-F32.gguf"},
		"a projector of another folder is not taken": {"/a/m-Q4_K_M.gguf", "a/m-Q4_K_M.gguf b/mmproj-F16.gguf", "a/m-Q4_K_M.gguf"},
	} {
		t.Run(name, func(t *testing.T) {
			ref := modelname.Ref{Kind: modelname.Hub, Owner: "O", Repo: "R", Quant: test.asked}
			if file, ok := strings.CutPrefix(test.asked, "/"); ok {
				ref.Quant, ref.File = "", file
			}
			var files []modelname.Listed
			for i, path := range strings.Fields(test.files) {
				files = append(files, modelname.Listed{Path: path, Size: int64(i)})
			}
			choice, err := modelname.Choose(files, ref)
			if refusal, ok := strings.CutPrefix(test.want, "! "); ok {
				if err == nil || !strings.Contains(err.Error(), refusal) {
					t.Errorf("got %v, %v, want %q", choice, err, refusal)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range choice.Parts {
				got = append(got, p.Path)
			}
			if choice.Projector != nil {
				got = append(got, "+", choice.Projector.Path)
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("got %s, want %s", text, test.want)
			}
		})
	}
}

// An error lists at most 40 names and stays below 16 KiB, however long the listing is.
func TestChooseListsAtMostForty(t *testing.T) {
	var files []modelname.Listed
	for i := range 500 {
		files = append(files, modelname.Listed{Path: fmt.Sprintf("%s-%d.gguf", strings.Repeat("x", 1000), i)})
	}
	_, err := modelname.Choose(files, modelname.Ref{Kind: modelname.Hub, Owner: "O", Repo: "R"})
	if err == nil || !strings.Contains(err.Error(), "and 460 more") || len(err.Error()) > 16<<10 {
		t.Errorf("%.200v", err)
	}
}
