package diag

// Codes of fetching a bundle (reconcile/source) and of syncing it into the state directory (reconcile/local).
const (
	LocationInvalid       Code = "LocationInvalid"
	RepositoryUnreachable Code = "RepositoryUnreachable"
	FetchTimeout          Code = "FetchTimeout"
	AuthFailed            Code = "AuthFailed"
	HostKeyRefused        Code = "HostKeyRefused"
	SignatureInvalid      Code = "SignatureInvalid"
	RefNotFound           Code = "RefNotFound"
	RefAmbiguous          Code = "RefAmbiguous"
	PathNotFound          Code = "PathNotFound"
	PathUnreadable        Code = "PathUnreadable"
	RepositoryEmpty       Code = "RepositoryEmpty"
	RepositoryTooLarge    Code = "RepositoryTooLarge"
	RepositoryCorrupt     Code = "RepositoryCorrupt"
	FileTooLarge          Code = "FileTooLarge"
	SymlinkEscape         Code = "SymlinkEscape"
	SymlinkRefused        Code = "SymlinkRefused"
	PathEscape            Code = "PathEscape"
	SubmoduleIgnored      Code = "SubmoduleIgnored"
	SourceChanging        Code = "SourceChanging"
	NodeUnknown           Code = "NodeUnknown"
	NodeVanished          Code = "NodeVanished"
	IdentityChanged       Code = "IdentityChanged"
	StateWriteFailed      Code = "StateWriteFailed"
)

var sourceCodes = []Explanation{
	{LocationInvalid, "the location of the bundle cannot be understood",
		"A location is a directory, or git+file|git+https|git+ssh://HOST/REPO//SUBDIR?ref=REF (or semver=RANGE). Plain http is refused because anybody on the path could change the network's configuration; user names and passwords in an https location are refused because locations are printed and logged.",
		"Correct the location; give credentials in a file or in the environment."},
	{RepositoryUnreachable, "the source cannot be reached",
		"No connection, no such host, a certificate nobody vouches for, a redirect to another host, or a server that is no Git server. The last good state stays in force and the fetch is repeated with growing pauses.",
		"Try the URL from this host; check DNS, routes, the proxy and the CA bundle (in a cluster the key ca.crt of the Secret that spec.git.secretRef names)."},
	{FetchTimeout, "the source did not deliver in time",
		"The whole fetch has a deadline, so that a server which accepts and never answers cannot hold the sync loop.",
		"Look at the server and the path to it; raise the timeout for a slow line."},
	{AuthFailed, "the source refused the credentials",
		"The server asked for credentials that were not given or not accepted. Hosting services also answer so for repositories that do not exist.",
		"Check the token, password or key file, that it is readable, and that it may read this repository."},
	{HostKeyRefused, "the ssh server's host key is unknown or has changed",
		"Host keys are checked strictly against known_hosts: a server that cannot prove its identity could feed any configuration.",
		"Add the host's key, obtained over a trusted way, to the known_hosts file; if it changed, find out why first."},
	{SignatureInvalid, "the commit is not signed by one of the keys that count",
		"A file of keys was given, so only commits that one of them signed are taken, whoever serves the repository: OpenPGP keys in armour, or the allowed_signers of ssh. Each commit that is to be applied is checked, not its ancestors.",
		"Sign the commit (git commit -S), or add the signer's public key to the file; a key that was revoked or has expired does not count."},
	{RefNotFound, "the branch, tag, commit or version does not exist",
		"The reference is looked for as a tag, a branch and, from 7 hexadecimal digits on, as a commit reachable from a branch or tag; a semver range among the tags.",
		"Check the spelling and that it was pushed."},
	{RefAmbiguous, "the reference has more than one meaning",
		"A name that is both a tag and a branch means the tag, as in git; an abbreviated commit that fits several commits is refused.",
		"Write refs/heads/NAME or refs/tags/NAME, or more digits of the commit."},
	{PathNotFound, "the directory does not exist in the source",
		"The directory, or the subdirectory after // in the location, is missing at this revision or is a file.",
		"Check the spelling, and whether the directory was moved by a commit."},
	{PathUnreadable, "a directory or file of the source cannot be read",
		"It is there, but this user may not read it, or the disk fails. Nothing is taken for a bundle of which a part is missing.",
		"Give the user who runs the command, or the service, permission to read it and all directories above; for a failing disk see the kernel's log."},
	{RepositoryEmpty, "the source holds no documents",
		"The repository has no commit, or no document (*.yaml, *.yml, *.json, hidden ones apart) stands under the directory. Nothing is not taken for an empty bundle.",
		"Push a commit, or correct the subdirectory."},
	{RepositoryTooLarge, "the source is larger than the limits",
		"Documents are limited to 10,000 files and 32 MiB in all; a transfer is limited too, packed and unpacked, so that a hostile or mistaken repository cannot fill memory or disk.",
		"Keep bundles in a repository of their own, or point to their subdirectory; fetch a branch or tag instead of a bare commit."},
	{RepositoryCorrupt, "the repository's objects are missing or malformed",
		"An object that the commit needs is absent, or does not parse. A damaged cache is thrown away and fetched again before this is reported.",
		"Run `git fsck` on the server's repository."},
	{FileTooLarge, "a document is larger than 1 MiB",
		"No bundle document needs a mebibyte; a larger one is a mistake or an attack on the parser.",
		"Split the document."},
	{SymlinkEscape, "a symbolic link leaves the bundle",
		"A link to a place outside would read files of this host, or of another part of the repository, that nobody reviewed as part of the bundle.",
		"Replace the link by the file itself."},
	{SymlinkRefused, "a symbolic link stands where a document or directory is expected",
		"Links inside a Git repository are not followed: what a diff shows must be what is read.",
		"Replace the link by the file itself."},
	{PathEscape, "a path leaves the bundle",
		"A subdirectory or a tree entry contains `..` or another name that cannot be a file below the bundle's root. Git itself never writes such a tree.",
		"Correct the subdirectory; a tree with such a name was crafted: do not trust the repository."},
	{SubmoduleIgnored, "a submodule is not read",
		"Only files of the commit itself are part of a bundle.",
		"Copy the files, or sync the other repository as its own bundle."},
	{SourceChanging, "the source is being written",
		"A snapshot must be one state, not half of an old and half of a new one. A directory is read until two readings agree; ConfigMaps made by danmctl pack say how many of them make a bundle.",
		"Wait for the writer to finish. Write to another directory and rename it; apply all ConfigMaps, and the NetworkBundle last."},
	{NodeUnknown, "the bundle does not declare this node",
		"The local home takes the node's name, labels and slot from a Topology's nodes; without them there is no plan for it.",
		"Add the node to the Topology, or correct --node."},
	{NodeVanished, "the bundle no longer declares this node",
		"A node missing from a new revision keeps the last state: removing a line must never tear down a running host.",
		"Put the node back, or stop syncing on this host and tear it down explicitly."},
	{IdentityChanged, "the new revision would change who owns addresses",
		"A node's slot, the number of slots, block sizes, and a state directory's node and home decide which node hands out which addresses. Changing one while an address record may exist could give an address to two Pods.",
		"Detach all Pods and release their addresses first, or put the old value back. A state directory serves one node: take another for another name."},
	{StateWriteFailed, "the state directory cannot be written",
		"The rendered state could not be made durable; the previous one stays in force.",
		"Check free space, permissions and whether another writer holds the directory."},
}
