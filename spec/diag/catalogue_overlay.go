package diag

// Codes of putting overlays together (reconcile/overlay).
const (
	OverlayRefused  Code = "OverlayRefused"
	OverlayRemote   Code = "OverlayRemote"
	OverlayCycle    Code = "OverlayCycle"
	OverlayTooLarge Code = "OverlayTooLarge"
	OverlayFailed   Code = "OverlayFailed"
)

var overlayCodes = []Explanation{
	{OverlayRefused, "a feature of kustomize that is not for bundles",
		"Overlays of a bundle are resources, patches, name prefixes and suffixes. Components, helm, plugins and generators could run programs or fetch from elsewhere, and labels, images and the like mean nothing to a bundle's documents. They are refused before kustomize runs.",
		"Follow the hint: most of it can be written as a patch."},
	{OverlayRemote, "a kustomization names something outside of the repository",
		"kustomize would fetch it, over the network, at the time of the build: the revision of the repository would no longer say what the configuration is. URLs, Git repositories and everything that looks like one are refused.",
		"Commit the files into the repository and name them by a relative path."},
	{OverlayCycle, "kustomizations include each other",
		"Each directory that is listed under resources is built first; a circle has no first one.",
		"Remove one of the references of the circle that is printed."},
	{OverlayTooLarge, "the overlays are nested too deep or too often",
		"A base that is included twice on each of n levels is built 2^n times. The number of builds and the depth are bounded so that a small repository cannot occupy the sync loop.",
		"Include each base once, or flatten the levels."},
	{OverlayFailed, "kustomize could not put the overlays together",
		"For example a patch whose target does not exist, or two documents of one kind and name. The message is kustomize's own.",
		"Check the kustomization that is named, its patches' targets, and the names of the resources."},
}
