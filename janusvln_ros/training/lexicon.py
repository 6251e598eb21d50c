"""
Words that a navigator should know whatever their frequency in English, the likeliest first: those
of almost every direction, others of directions, and those for what stands in homes. They belong to
the vocabulary of a small network and are what a mistyped word most likely was
(`janusvln_ros.training.words`).
"""

# ruff: noqa: SIM905

CORE = tuple(
    """
the a and to of on in at your you it is that there into through then left right turn go walk
move head stop wait halt door doorway room hallway hall corridor past pass next first second
third last straight ahead forward around behind front side until when where see with from out up
by end take leave enter exit follow keep going continue start started back across between beside
near toward towards walls wall thing one not don't lamp table chair sofa couch bed box shelf
cabinet wardrobe fridge clock column barrel plant red blue green yellow orange purple pink brown
black white grey turquoise colour
""".split()
)

DIRECTIONS = tuple(
    """
an this these those its ones other another each every both all any no i yours here while till
before after or but so fourth fifth sixth final finally again once twice onto without along over
under above below besides beyond nearest close closest adjacent opposite facing against inside
outside within off down away if too also just only are be has have do doesn't can can't cannot
could will would should must let let's need want like please thanks thank hello hey now ok okay
yes goes gone walks walking moves moving heads heading proceed keeps keeping takes taking turns
turning rotate spin face make makes making get gets getting come comes coming enters entering
leaves leaving cross crossing passes passing stops stopping waits waiting stand stay remain find
look looking seeing reach reaching return starting begin ends ending arrive step steps forwards
sides hand middle center centre corner edge far further furthest farthest way path direction
half quarter full about degrees metre metres meter meters feet foot doors doorways opening
entrance entry rooms passage floor ceiling window place spot things object objects item items
something anything nothing lamps light lights closet shelves bookcase refrigerator pillar
cupboard tables desk chairs boxes crate gray teal dark color coloured colored same different big
small large little tall short long wide narrow low high kitchen bedroom bathroom office
immediately directly slightly slowly quickly carefully almost halfway instead avoid ignore skip
miss
""".split()
)

HOME = tuple(
    """
settee divan loveseat futon recliner armchair rocker stool barstool footstool ottoman pouf
pouffe hassock bench pew chesterfield chaise lounger beanbag sectional sideboard credenza buffet
hutch armoire dresser bureau chiffonier nightstand commode vanity bookshelf bookrack shelving
rack pantry larder locker cubby console workbench worktop countertop counter island escritoire
lectern podium pedestal plinth easel bunk cot crib cradle hammock mattress bedstead headboard
pillow cushion duvet quilt blanket bedspread lantern luminaire chandelier sconce floorlamp
torchiere candle candlestick candelabra bulb spotlight icebox freezer stove cooker hob oven
microwave dishwasher washer dryer kettle toaster blender sink basin washbasin faucet tap bathtub
bath shower toilet lavatory urinal bidet towel radiator heater boiler furnace fireplace hearth
mantel mantelpiece chimney vent fan hoover vacuum broom mop bucket pail bin trashcan wastebasket
dustbin keg cask vat tub drum tank cylinder canister jar jug urn vase pot planter flowerpot
carton chest trunk coffer casket case suitcase hamper basket package parcel container bag sack
backpack post pole pier pilaster support beam joist arch archway pylon bollard cone pyramid cube
cuboid block brick sphere globe orb ball disc disk ring ladder houseplant fern shrub bush cactus
ficus palm bonsai flower bouquet tree potted timepiece watch timer alarm grandfather pendulum
mirror painting picture poster portrait print artwork sculpture statue bust figurine trophy
tapestry curtain drape drapes blind blinds shutter windowsill sill pane rug carpet mat doormat
runner tile tiles parquet linoleum floorboard partition screen divider panel doorframe entryway
entranceway gate gateway hatch threshold porch portal passageway foyer lobby vestibule aisle
walkway landing stairwell staircase stairway stairs banister railing elevator lift escalator
kitchenette lounge livingroom parlour parlor den study library nursery playroom diningroom
conservatory sunroom attic loft basement cellar garage utility laundry storeroom cloakroom
washroom restroom ensuite alcove nook recess niche bay balcony terrace patio veranda deck
television tv telly monitor laptop computer printer telephone piano guitar speaker stereo
scarlet crimson maroon burgundy vermilion ruby cherry rust reddish azure cobalt navy indigo
sapphire cerulean bluish cyan aqua aquamarine emerald olive lime jade mint khaki greenish lemon
amber mustard golden gold yellowish violet lilac lavender mauve plum magenta fuchsia purplish
tangerine apricot peach coral salmon rose pinkish ivory cream beige ecru pale whitish ebony jet
charcoal blackish silver greyish grayish slate chestnut tan bronze copper brownish chocolate
walnut mahogany hazel colourful bright dim striped wooden metallic metal leather fabric glass
plastic advance march stroll wander amble trot travel carry hike stride saunter roll drive pivot
swing swivel veer bear steer twist pause rest finish park standstill bypass skirt traverse
circle squeeze depart vacate quit reenter retreat backtrack reverse retrace onward onwards
backwards backward sideways leftward rightward leftwards rightwards clockwise counterclockwise
anticlockwise nearby alongside adjoining neighbouring neighboring leftmost rightmost midway
afterwards afterward subsequently thereafter unless
""".split()
)
